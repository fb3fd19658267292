"""Which objects belong to an MLflowServer. The operator never changes or deletes any other object."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

_NEVER_DELETED = frozenset({"Secret", "PersistentVolumeClaim"})
"""Kinds that no message advises to delete: they may contain the only copy of a password or of data."""


class Cause(Enum):
    """Why an object with a required name cannot be used. The order is that of the sentences in a message."""

    OTHER_SERVER = auto()
    NOT_OWNED = auto()
    DATA_WITHOUT_LABELS = auto()
    OTHER_POD_TEMPLATE = auto()


@dataclass(frozen=True)
class NameConflict:
    """An object that has a name that an MLflowServer requires, and that does not belong to it.

    `other_server` is the MLflowServer that the object belongs to; empty if there is none.
    """

    kind: str
    name: str
    cause: Cause
    other_server: str = ""


class NameConflictError(ConfigurationError):
    """An object with the desired name does not belong to this MLflowServer. The operator never takes it over."""

    def __init__(self, conflict: NameConflict, owner: Object) -> None:
        super().__init__(Reason.NAME_CONFLICT, conflict_message([conflict], owner))
        self.conflict = conflict


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


def is_adoptable(observed: Object, owner: Object) -> bool:
    """Whether a disposable object has the labels of the MLflowServer and no controller.

    Backups of the cluster are restored like this: ownerReferences contain uids, which are not valid any more.
    """
    return has_labels(observed, owner) and not _controller_reference(observed)


def check_ownership(observed: Object, owner: Object, *, data: bool) -> None:
    """Raise NameConflictError if the object does not belong to `owner`, BeingDeletedError if it is being deleted.

    A disposable object without a controller is adopted if it has the labels.
    """
    kind, name = observed["kind"], _name(observed)
    if not data and _belongs_to_previous_server(observed, owner):
        raise BeingDeletedError(
            kind,
            name,
            f'{kind} "{name}" belongs to a deleted MLflowServer of the same name and is being deleted. '
            "The operator recreates it after the deletion.",
        )
    conflict = find_conflict(observed, owner, data=data)
    if conflict:
        raise NameConflictError(conflict, owner)
    if observed["metadata"].get("deletionTimestamp"):
        raise BeingDeletedError(
            kind, name, f'{kind} "{name}" is being deleted. The operator recreates it after the deletion.'
        )


def find_conflict(observed: Object, owner: Object, *, data: bool) -> NameConflict | None:
    """Why the object cannot be used for `owner`; None if it can, or if it is being deleted with a previous server."""
    if belongs_to(observed, owner, data=data):
        return None
    if not data and (is_adoptable(observed, owner) or _belongs_to_previous_server(observed, owner)):
        return None
    object_labels = observed["metadata"].get("labels") or {}
    other = object_labels.get(labels.SERVER)
    if object_labels.get(labels.MANAGED_BY) == labels.OPERATOR and other and other != _name(owner):
        return NameConflict(observed["kind"], _name(observed), Cause.OTHER_SERVER, other)
    cause = Cause.DATA_WITHOUT_LABELS if data else Cause.NOT_OWNED
    return NameConflict(observed["kind"], _name(observed), cause)


def conflict_message(conflicts: Iterable[NameConflict], owner: Object) -> str:
    """One message about all conflicts of an MLflowServer. It never advises to delete an object that may be data."""
    groups: dict[tuple[int, str], list[NameConflict]] = {}
    for conflict in sorted(set(conflicts), key=lambda found: (found.kind, found.name)):
        groups.setdefault((conflict.cause.value, conflict.other_server), []).append(conflict)
    return " ".join(_group_message(group, owner) for _, group in sorted(groups.items()))


def label_command(objects: Iterable[tuple[str, str]], owner: Object) -> str:
    """The command that adds the labels of an MLflowServer to objects, each a kind and a name."""
    targets = " ".join(f"{kind.lower()}/{name}" for kind, name in objects)
    return (
        f"kubectl label -n {owner['metadata']['namespace']} {targets} {labels.MANAGED_BY}={labels.OPERATOR} "
        f"{labels.SERVER}={_name(owner)}"
    )


def has_labels(observed: Object, owner: Object) -> bool:
    """Whether the object has the labels of the MLflowServer."""
    return labels.belong_to_server(observed["metadata"], _name(owner))


def _group_message(conflicts: list[NameConflict], owner: Object) -> str:
    """The sentences about conflicts with the same cause."""
    first, several = conflicts[0], len(conflicts) > 1
    subject = _as_text(conflicts)
    match first.cause:
        case Cause.OTHER_SERVER:
            return (
                f'{subject} {"belong" if several else "belongs"} to MLflowServer "{first.other_server}", which '
                f"requires the same object {'names' if several else 'name'}. Give one of the two MLflowServers another "
                "name."
            )
        case Cause.NOT_OWNED:
            deletion = f", or delete {'them' if several else f'the {first.kind}'}"
            may_be_data = any(conflict.kind in _NEVER_DELETED for conflict in conflicts)
            return (
                f"{subject} already {'exist and do' if several else 'exists and does'} not belong to this "
                f"MLflowServer. Rename the MLflowServer{'' if may_be_data else deletion}."
            )
        case Cause.DATA_WITHOUT_LABELS:
            command = label_command([(conflict.kind, conflict.name) for conflict in conflicts], owner)
            return (
                f"{subject} {'do' if several else 'does'} not have the labels of this MLflowServer, so the operator "
                f"does not use {'them' if several else 'it'}. To use the data of this server, for example after a "
                f"restore, run: {command}. Otherwise, rename the MLflowServer."
            )
        case Cause.OTHER_POD_TEMPLATE:
            return (
                f"{subject} {'have' if several else 'has'} the labels of this MLflowServer and no owner, but another "
                "pod template than the one that the operator creates, so its result proves nothing. Delete the "
                f"{'Jobs' if several else 'Job'}: the operator creates its own."
            )


def _as_text(conflicts: list[NameConflict]) -> str:
    names = [f'{conflict.kind} "{conflict.name}"' for conflict in conflicts]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


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
