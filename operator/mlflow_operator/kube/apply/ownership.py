"""Which objects belong to an MLflowServer. The operator never changes or deletes any other object."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError


class NameConflictError(ConfigurationError):
    """An object with the desired name does not belong to this MLflowServer. The operator never takes it over."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(Reason.NAME_CONFLICT, message)
        self.kind = kind
        self.name = name


class BeingDeletedError(TransientError):
    """The object belongs to the operator but is being deleted. The operator recreates it after the deletion."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(Reason.PROGRESSING, message)
        self.kind = kind
        self.name = name


def belongs_to(observed: Object, owner: Object, *, data: bool) -> bool:
    """Whether the object belongs to this MLflowServer; a data object, to any MLflowServer with this name.

    A data object is identified by its labels. A disposable object is identified by the owner's uid, so that a label
    removed by hand is drift like any other and is restored.
    """
    if data:
        return has_labels(observed, owner)
    return bool(_controller_reference(observed).get("uid") == owner["metadata"]["uid"])


def check_ownership(observed: Object, owner: Object, *, data: bool) -> None:
    """Raise NameConflictError if the object does not belong to `owner`, BeingDeletedError if it is being deleted."""
    kind, name = observed["kind"], _name(observed)
    if not data and _belongs_to_previous_server(observed, owner):
        raise BeingDeletedError(
            kind,
            name,
            f'{kind} "{name}" belongs to a deleted MLflowServer of the same name and is being deleted. '
            "The operator recreates it after the deletion.",
        )
    if not belongs_to(observed, owner, data=data):
        raise NameConflictError(kind, name, _name_conflict_message(observed, owner))
    if observed["metadata"].get("deletionTimestamp"):
        raise BeingDeletedError(
            kind, name, f'{kind} "{name}" is being deleted. The operator recreates it after the deletion.'
        )


def _name_conflict_message(observed: Object, owner: Object) -> str:
    kind, name, object_labels = observed["kind"], _name(observed), observed["metadata"].get("labels") or {}
    other_server = object_labels.get(labels.SERVER)
    managed = object_labels.get(labels.MANAGED_BY) == labels.OPERATOR
    if managed and other_server and other_server != _name(owner):
        # Must not advise to delete the object, as below: the other MLflowServer would recreate it.
        return (
            f'{kind} "{name}" belongs to MLflowServer "{other_server}", which requires the same object name. '
            "Give one of the two MLflowServers another name."
        )
    return (
        f'{kind} "{name}" already exists and does not belong to this MLflowServer. '
        f"Rename the MLflowServer, or delete the {kind}."
    )


def has_labels(observed: Object, owner: Object) -> bool:
    """Whether the object has the labels of the MLflowServer."""
    object_labels = observed["metadata"].get("labels") or {}
    managed = object_labels.get(labels.MANAGED_BY) == labels.OPERATOR
    return managed and object_labels.get(labels.SERVER) == _name(owner)


def _controller_reference(observed: Object) -> Object:
    references: list[Object] = observed["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), {})


def _belongs_to_previous_server(observed: Object, owner: Object) -> bool:
    controller = _controller_reference(observed)
    return (
        controller.get("kind") == kinds.MLFLOWSERVER.kind
        and controller.get("name") == _name(owner)
        and controller.get("uid") != owner["metadata"]["uid"]
    )


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
