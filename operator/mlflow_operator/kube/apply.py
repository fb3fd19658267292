"""Making one object in the cluster what it should be, and leaving alone what is not ours.

Two sorts of objects are ours. Disposable ones carry a controller ownerReference and go with the MLflowServer.
Data objects (volumes, generated credentials) carry labels only: they outlive it and are taken back by name
and label. At rest nothing is written.
"""

import json
import logging
from collections.abc import Callable, Iterable

from mlflow_operator.kube import diff, kinds, labels, quantity, schema_fields
from mlflow_operator.kube.apply_backoff import ApplyBackoff
from mlflow_operator.kube.client import FIELD_MANAGER, AlreadyExists, Conflict, KubernetesClient
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.unmanaged_fields import PatchOp, removals
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

logger = logging.getLogger(__name__)

_REPAIRS = ApplyBackoff()


# Named as the conditions they become; UserMistake and NotReady tell steps what to make of them.
class NameConflictError(ConfigurationError):
    """An object of the wanted name belongs to somebody else. It is never taken over."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(Reason.NAME_CONFLICT, message)
        self.kind = kind
        self.name = name


class BeingDeletedError(TransientError):
    """The object is ours, but on its way out. When it is gone it is made anew."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(Reason.PROGRESSING, message)
        self.kind = kind
        self.name = name


class ApplyConflictError(ConfigurationError):
    """Somebody undoes every repair. `retry_after`: seconds until the next one."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(Reason.APPLY_CONFLICT, message)
        self.retry_after = retry_after


async def ensure(  # noqa: PLR0913 - the last two have defaults that only data objects and tests change
    cluster: KubernetesClient,
    desired: Object,
    live: Object | None,
    owner: Object,
    *,
    data: bool = False,
    repairs: ApplyBackoff = _REPAIRS,
) -> Object | None:
    """Make `live` what `desired` says. The object as written, or None if there was nothing to write.

    `owner` is the MLflowServer as read from the cluster; a disposable object gets its ownerReference here, a
    data object (`data`) none. A data object is made once and its values are never touched again; only a
    volume that should be larger is grown.

    Raises NameConflict, GoingAway, ApplyConflict, and what `Cluster` raises.
    """
    if live is None:
        # Read again by name: an observation by label does not see a stranger's object, and to apply to
        # that would take it over.
        live = await cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
    if live is not None:
        check(live, owner, data=data)
    if data:
        return await _ensure_data(cluster, desired, live)
    wanted = _owned_by(desired, owner)
    if live is None:
        made = await cluster.apply(_with_digest(wanted))
        logger.info("created %s", _called(desired))
        return made
    return await _ensure_same(cluster, wanted, live, repairs)


async def ensure_job(
    cluster: KubernetesClient, desired: Object, live: Object | None, owner: Object
) -> Object | None:
    """Create a Job if there is none. One that exists is never changed: its name says what it was made from.

    The Job as created, or None if it was there. Raises as `ensure` does, ApplyConflict aside.
    """
    if live is None:
        try:
            made = await cluster.create(_owned_by(desired, owner))
        except AlreadyExists:
            live = await cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
        else:
            logger.info("created %s", _called(desired))
            return made
    if live is not None:
        check(live, owner, data=False)
    return None


async def prune(
    cluster: KubernetesClient, desired: Iterable[Object], live: Iterable[Object], owner: Object
) -> list[Object]:
    """Delete the disposable objects among `live` that belong to `owner` and are not in `desired`.

    Data objects have no owner, so nothing here can ever delete one. Returns what was deleted.
    """
    wanted = {(kinds.of(obj), _name(obj)) for obj in desired}
    gone = []
    for obj in live:
        if (kinds.of(obj), _name(obj)) in wanted or not (
            _labelled(obj, owner) and is_ours(obj, owner, data=False)
        ):
            continue
        if obj["metadata"].get("deletionTimestamp"):
            continue
        await cluster.delete(obj)
        logger.info("deleted %s, which is no longer wanted", _called(obj))
        gone.append(obj)
    return gone


def is_ours(live: Object, owner: Object, *, data: bool) -> bool:
    """Whether the object was made for this very MLflowServer; a data object, for any one of its name.

    Labels tell for data. For all else the owner's uid does, so that a label taken off by hand is drift like
    any other and comes back.
    """
    return _labelled(live, owner) if data else bool(_controller(live).get("uid") == owner["metadata"]["uid"])


def check(live: Object, owner: Object, *, data: bool) -> None:
    """Raise NameConflict if an object is not ours to write, GoingAway if it is but is being deleted."""
    kind, name = live["kind"], _name(live)
    if not data and _of_former_self(live, owner):
        raise BeingDeletedError(
            kind,
            name,
            f'{kind} "{name}" still belongs to an earlier MLflowServer of this name and is being deleted. '
            "It is made anew when it is gone.",
        )
    if not is_ours(live, owner, data=data):
        raise NameConflictError(kind, name, _whose(live, owner))
    if live["metadata"].get("deletionTimestamp"):
        raise BeingDeletedError(
            kind, name, f'{kind} "{name}" is being deleted. It is made anew when it is gone.'
        )


def _whose(live: Object, owner: Object) -> str:
    kind, name, carried = live["kind"], _name(live), live["metadata"].get("labels") or {}
    other = carried.get(labels.SERVER)
    if carried.get(labels.MANAGED_BY) == labels.OPERATOR and other and other != _name(owner):
        # to delete it, as below, would only start a race
        return (
            f'{kind} "{name}" belongs to MLflowServer "{other}", which needs it under this very name. '
            "Give one of the two another name."
        )
    return (
        f'{kind} "{name}" exists and was not made for this MLflowServer. '
        f"Rename the MLflowServer, or delete that {kind}."
    )


async def _ensure_same(
    cluster: KubernetesClient, wanted: Object, live: Object, repairs: ApplyBackoff
) -> Object | None:
    differences = diff.drift(wanted, live)
    foreign = removals(wanted, live)
    secret = wanted["kind"] == "Secret"
    as_applied = secret or _applied(live) == diff.digest(wanted)
    if as_applied and not differences and not foreign:
        return None
    if as_applied:
        paths = sorted({*differences, *(correction.field for correction in foreign)})
        _hold_back(live, wanted, paths, repairs)
    written = live
    # A choice that somebody changed must be set right before apply, which would be refused otherwise.
    if _choices(wanted, live):
        written = await _correct(cluster, wanted, live, _choices)
    if differences or not as_applied:
        # The uid makes sure that this is still the object that was looked at.
        written = await cluster.apply(_with_digest(wanted, uid=live["metadata"]["uid"]))
    if removals(wanted, written):
        written = await _correct(cluster, wanted, written, removals)
    paths = [*differences, *(correction.field for correction in foreign)]
    logger.info(
        "updated %s: %s", _called(wanted), ", ".join(dict.fromkeys(paths)) or "what is wanted has changed"
    )
    return written


def _choices(wanted: Object, live: Object) -> list[PatchOp]:
    return [correction for correction in removals(wanted, live) if correction.value is not None]


async def _correct(
    cluster: KubernetesClient,
    wanted: Object,
    live: Object,
    which: Callable[[Object, Object], list[PatchOp]],
) -> Object:
    """Takes away what strangers put in. Positions in lists hold for one version of the object alone, and a controller
    that works on the very change (by a status, say) makes another: then it is looked at anew."""
    for last in (False, False, True):
        unchanged = {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": live["metadata"]["resourceVersion"],
        }
        steps = [step.step() for step in which(wanted, live)]
        if not steps:
            return live
        try:
            return await cluster.json_patch(
                kinds.of(live), _namespace(live), _name(live), [unchanged, *steps]
            )
        except Conflict:
            fresh = await cluster.get(kinds.of(live), _namespace(live), _name(live))
            if last or fresh is None or fresh["metadata"]["uid"] != live["metadata"]["uid"]:
                raise
            live = fresh
    raise AssertionError("the last try returns or raises")


async def _ensure_data(cluster: KubernetesClient, desired: Object, live: Object | None) -> Object | None:
    if live is None:
        made = await cluster.create(desired)
        logger.info("created %s", _called(desired))
        return made
    if desired["kind"] != "PersistentVolumeClaim":
        return None
    size = desired["spec"]["resources"]["requests"]["storage"]
    if quantity.compare(size, live["spec"]["resources"]["requests"]["storage"]) <= 0:
        return None
    if (live.get("status") or {}).get("phase") != "Bound":
        # Until then the API server lets nothing be changed; to be bound is an event, which brings us back.
        return None
    larger = {
        "apiVersion": desired["apiVersion"],
        "kind": desired["kind"],
        "metadata": {key: desired["metadata"][key] for key in ("name", "namespace")},
        "spec": {"resources": {"requests": {"storage": size}}},
    }
    larger["metadata"]["uid"] = live["metadata"]["uid"]
    grown = await cluster.apply(larger)
    logger.info("grew %s to %s", _called(desired), size)
    return grown


def _hold_back(live: Object, wanted: Object, paths: list[str], repairs: ApplyBackoff) -> None:
    # Of a Secret too, for this hash never leaves the process, and another process would get another one.
    wish = hash(json.dumps(wanted, sort_keys=True))
    seconds = repairs.pause(live["metadata"]["uid"], wish, paths)
    if not seconds:
        return
    others = schema_fields.managers(live, paths, FIELD_MANAGER)
    who = f"({', '.join(others)}) " if others else ""
    kind, name = live["kind"], _name(live)
    raise ApplyConflictError(
        f'{kind} "{name}": somebody {who}changes {", ".join(paths)} back each time the operator sets it. '
        "Stop that, or set it in the MLflowServer instead.",
        seconds,
    )


def _owned_by(desired: Object, owner: Object) -> Object:
    reference = {
        "apiVersion": kinds.MLFLOWSERVER.api_version,
        "kind": kinds.MLFLOWSERVER.kind,
        "name": _name(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {**desired, "metadata": {**desired["metadata"], "ownerReferences": [reference]}}


def _with_digest(wanted: Object, uid: str | None = None) -> Object:
    metadata = dict(wanted["metadata"])
    if wanted["kind"] != "Secret":
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            labels.APPLIED: diff.digest(wanted),
        }
    if uid is not None:
        metadata["uid"] = uid
    return {**wanted, "metadata": metadata}


def _applied(live: Object) -> str | None:
    noted = (live["metadata"].get("annotations") or {}).get(labels.APPLIED)
    return str(noted) if noted else None


def _labelled(live: Object, owner: Object) -> bool:
    carried = live["metadata"].get("labels") or {}
    return carried.get(labels.MANAGED_BY) == labels.OPERATOR and carried.get(labels.SERVER) == _name(owner)


def _controller(live: Object) -> Object:
    references: list[Object] = live["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), {})


def _of_former_self(live: Object, owner: Object) -> bool:
    holder = _controller(live)
    return (
        holder.get("kind") == kinds.MLFLOWSERVER.kind
        and holder.get("name") == _name(owner)
        and holder.get("uid") != owner["metadata"]["uid"]
    )


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _namespace(obj: Object) -> str:
    return str(obj["metadata"]["namespace"])


def _called(obj: Object) -> str:
    return f"{obj['kind']} {_namespace(obj)}/{_name(obj)}"
