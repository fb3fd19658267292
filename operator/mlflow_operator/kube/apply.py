"""Create, update and delete the operator's objects, and never touch objects that belong to others.

The operator has two classes of objects. Disposable objects carry a controller ownerReference and are deleted with the
MLflowServer. Data objects (volumes, generated credentials) carry labels only: they outlive the MLflowServer, and a new
one of the same name adopts them by name and label. Nothing is written when an object is already as desired.
"""

import json
import logging
from collections.abc import Callable, Iterable

from mlflow_operator.kube import diff, json_patch, kinds, labels, quantity, schema_fields
from mlflow_operator.kube.apply_backoff import ApplyBackoff
from mlflow_operator.kube.client import FIELD_MANAGER, AlreadyExists, Conflict, KubernetesClient
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.unmanaged_fields import PatchOp, removals
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

logger = logging.getLogger(__name__)

_BACKOFF = ApplyBackoff()


# Each error becomes a condition. Its base class decides how a step retries: ConfigurationError or TransientError.
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


class ApplyConflictError(ConfigurationError):
    """Another client reverts every update. `retry_after`: seconds until the next update."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(Reason.APPLY_CONFLICT, message)
        self.retry_after = retry_after


async def ensure(  # noqa: PLR0913 - the last two have defaults that only data objects and tests change
    cluster: KubernetesClient,
    desired: Object,
    observed: Object | None,
    owner: Object,
    *,
    data: bool = False,
    backoff: ApplyBackoff = _BACKOFF,
) -> Object | None:
    """Create the object, or update `observed` to match `desired`.

    Returns the stored object, or None if there was nothing to write. `owner` is the MLflowServer as read from the
    cluster. A disposable object gets an ownerReference to it, a data object (`data`) does not. A data object is created
    once and its values are never changed; only a PersistentVolumeClaim is resized if the desired size is larger.

    Raises NameConflictError, BeingDeletedError, ApplyConflictError, and the errors of `KubernetesClient`.
    """
    if observed is None:
        # Read again by name: the list by label does not contain an object of another owner, and an apply would take
        # that object over.
        observed = await cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
    if observed is not None:
        check_ownership(observed, owner, data=data)
    if data:
        return await _ensure_data(cluster, desired, observed)
    owned = _with_owner_reference(desired, owner)
    if observed is None:
        created = await cluster.apply(_with_digest(owned))
        logger.info("created %s", _describe(desired))
        return created
    return await _update(cluster, owned, observed, backoff)


async def ensure_job(
    cluster: KubernetesClient, desired: Object, observed: Object | None, owner: Object
) -> Object | None:
    """Create a Job if it does not exist. An existing Job is never changed: its name identifies its inputs.

    Returns the created Job, or None if it existed. Raises the same errors as `ensure` except ApplyConflictError.
    """
    if observed is None:
        try:
            created = await cluster.create(_with_owner_reference(desired, owner))
        except AlreadyExists:
            observed = await cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
        else:
            logger.info("created %s", _describe(desired))
            return created
    if observed is not None:
        check_ownership(observed, owner, data=False)
    return None


async def prune(
    cluster: KubernetesClient, desired: Iterable[Object], observed: Iterable[Object], owner: Object
) -> list[Object]:
    """Delete the disposable objects in `observed` that belong to `owner` and are not in `desired`.

    Data objects have no ownerReference, so this function can never delete one. Returns the deleted objects.
    """
    desired_keys = {(kinds.of(obj), _name(obj)) for obj in desired}
    deleted = []
    for obj in observed:
        if (kinds.of(obj), _name(obj)) in desired_keys or not (
            _has_labels(obj, owner) and belongs_to(obj, owner, data=False)
        ):
            continue
        if obj["metadata"].get("deletionTimestamp"):
            continue
        await cluster.delete(obj)
        logger.info("deleted %s, which is no longer desired", _describe(obj))
        deleted.append(obj)
    return deleted


def belongs_to(observed: Object, owner: Object, *, data: bool) -> bool:
    """Whether the object belongs to this MLflowServer; a data object, to any MLflowServer with this name.

    A data object is identified by its labels. A disposable object is identified by the owner's uid, so that a label
    removed by hand is drift like any other and is restored.
    """
    if data:
        return _has_labels(observed, owner)
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


async def _update(
    cluster: KubernetesClient, desired: Object, observed: Object, backoff: ApplyBackoff
) -> Object | None:
    differences = diff.drift(desired, observed)
    unmanaged = removals(desired, observed)
    secret = desired["kind"] == "Secret"
    digest_matches = secret or _last_applied_digest(observed) == diff.digest(desired)
    if digest_matches and not differences and not unmanaged:
        return None
    if digest_matches:
        paths = sorted({*differences, *(patch_op.field for patch_op in unmanaged)})
        _check_backoff(observed, desired, paths, backoff)
    result = observed
    # A changed union member must be replaced before the apply, which the API server would reject otherwise.
    if _replacements(desired, observed):
        result = await _apply_patch(cluster, desired, observed, _replacements)
    if differences or not digest_matches:
        # With the uid the API server rejects the apply if another object has taken the name.
        result = await cluster.apply(_with_digest(desired, uid=observed["metadata"]["uid"]))
    if removals(desired, result):
        result = await _apply_patch(cluster, desired, result, removals)
    paths = [*differences, *(patch_op.field for patch_op in unmanaged)]
    logger.info(
        "updated %s: %s", _describe(desired), ", ".join(dict.fromkeys(paths)) or "the desired state changed"
    )
    return result


def _replacements(desired: Object, observed: Object) -> list[PatchOp]:
    return [patch_op for patch_op in removals(desired, observed) if patch_op.value is not None]


async def _apply_patch(
    cluster: KubernetesClient,
    desired: Object,
    observed: Object,
    patch_ops: Callable[[Object, Object], list[PatchOp]],
) -> Object:
    """Apply the JSON patch that `patch_ops` computes, and compute it again after a conflict.

    List indexes are valid for one resourceVersion only. A controller that reacts to the change at the same time (with a
    status update, for example) creates a new version; the object is then read again.
    """
    for last_attempt in (False, False, True):
        operations = [op.as_json() for op in patch_ops(desired, observed)]
        if not operations:
            return observed
        try:
            return await cluster.json_patch(
                kinds.of(observed),
                _namespace(observed),
                _name(observed),
                [json_patch.unchanged(observed), *operations],
            )
        except Conflict:
            fresh = await cluster.get(kinds.of(observed), _namespace(observed), _name(observed))
            if last_attempt or fresh is None or fresh["metadata"]["uid"] != observed["metadata"]["uid"]:
                raise
            observed = fresh
    raise AssertionError("the last attempt returns or raises")


async def _ensure_data(cluster: KubernetesClient, desired: Object, observed: Object | None) -> Object | None:
    if observed is None:
        created = await cluster.create(desired)
        logger.info("created %s", _describe(desired))
        return created
    if desired["kind"] != "PersistentVolumeClaim":
        return None
    size = desired["spec"]["resources"]["requests"]["storage"]
    if quantity.compare(size, observed["spec"]["resources"]["requests"]["storage"]) <= 0:
        return None
    if (observed.get("status") or {}).get("phase") != "Bound":
        # The API server rejects a resize until the claim is bound. The watch reports the binding, which triggers the
        # next reconcile.
        return None
    resize = {
        "apiVersion": desired["apiVersion"],
        "kind": desired["kind"],
        "metadata": {key: desired["metadata"][key] for key in ("name", "namespace")},
        "spec": {"resources": {"requests": {"storage": size}}},
    }
    resize["metadata"]["uid"] = observed["metadata"]["uid"]
    resized = await cluster.apply(resize)
    logger.info("resized %s to %s", _describe(desired), size)
    return resized


def _check_backoff(observed: Object, desired: Object, paths: list[str], backoff: ApplyBackoff) -> None:
    # Safe for a Secret: this hash stays in the process, and it is salted differently in each process.
    desired_hash = hash(json.dumps(desired, sort_keys=True))
    seconds = backoff.request_update(observed["metadata"]["uid"], desired_hash, paths)
    if not seconds:
        return
    managers = schema_fields.other_managers(observed, paths, FIELD_MANAGER)
    manager_list = f" ({', '.join(managers)})" if managers else ""
    kind, name = observed["kind"], _name(observed)
    raise ApplyConflictError(
        f'{kind} "{name}": another client{manager_list} reverts {", ".join(paths)} each time the operator sets it. '
        "Stop that client, or set the value in the MLflowServer.",
        seconds,
    )


def _with_owner_reference(desired: Object, owner: Object) -> Object:
    reference = {
        "apiVersion": kinds.MLFLOWSERVER.api_version,
        "kind": kinds.MLFLOWSERVER.kind,
        "name": _name(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {**desired, "metadata": {**desired["metadata"], "ownerReferences": [reference]}}


def _with_digest(desired: Object, uid: str | None = None) -> Object:
    metadata = dict(desired["metadata"])
    if desired["kind"] != "Secret":
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            labels.APPLIED_DIGEST: diff.digest(desired),
        }
    if uid is not None:
        metadata["uid"] = uid
    return {**desired, "metadata": metadata}


def _last_applied_digest(observed: Object) -> str | None:
    digest = (observed["metadata"].get("annotations") or {}).get(labels.APPLIED_DIGEST)
    return str(digest) if digest else None


def _has_labels(observed: Object, owner: Object) -> bool:
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


def _namespace(obj: Object) -> str:
    return str(obj["metadata"]["namespace"])


def _describe(obj: Object) -> str:
    return f"{obj['kind']} {_namespace(obj)}/{_name(obj)}"
