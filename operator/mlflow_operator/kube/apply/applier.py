"""Create, update and delete the operator's objects, and never touch objects that belong to others.

The operator has two classes of objects. Disposable objects carry a controller ownerReference and are deleted with the
MLflowServer. Data objects (volumes, generated credentials) carry labels only: they outlive the MLflowServer, and a new
one of the same name adopts them by name and label. Nothing is written when an object is already as desired.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from mlflow_operator.kube import json_patch, kinds, labels, quantity
from mlflow_operator.kube.apply import diff, ownership, schema_fields
from mlflow_operator.kube.apply.admission import AdmittedWrites
from mlflow_operator.kube.apply.backoff import ApplyBackoff
from mlflow_operator.kube.apply.field_ownership import without_shared_fields
from mlflow_operator.kube.apply.job_template import has_desired_pod_template
from mlflow_operator.kube.apply.ownership import (
    NameConflictError,
    belongs_to,
    check_ownership,
    has_labels,
    is_adoptable,
)
from mlflow_operator.kube.apply.unmanaged_fields import PatchOp, removals
from mlflow_operator.kube.client import FIELD_MANAGER, AlreadyExists, Conflict, KubernetesClient
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

logger = logging.getLogger(__name__)

_MAX_PATCH_ATTEMPTS = 3
"""Attempts to apply a JSON patch to an object that others change at the same time."""

_CREATED_UNREAD = frozenset({kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONFIGMAP, kinds.PDB, kinds.CRONJOB})
"""Kinds that the operator can recreate at any time without loss. It creates them without reading them first."""

_ADMISSION_HINT = (
    " If there is none, check the admission webhooks and policies of the cluster: "
    "kubectl get mutatingwebhookconfigurations"
)


class ApplyConflictError(ConfigurationError):
    """Another client reverts every update. Until the backoff has passed, the operator does not write again."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.APPLY_CONFLICT, message)


class Applier:
    """Creates, updates and deletes objects with server-side apply. One instance serves all MLflowServers."""

    def __init__(self, cluster: KubernetesClient, backoff: ApplyBackoff | None = None) -> None:
        self._cluster, self._backoff = cluster, backoff or ApplyBackoff()
        self._admitted = AdmittedWrites()
        self._used_names: defaultdict[NamespacedName, set[tuple[str, str]]] = defaultdict(set)

    async def ensure(
        self,
        desired: Object,
        observed: Object | None,
        owner: Object,
        *,
        data: bool = False,
        is_absent: bool = False,
    ) -> Object:
        """Create the object, or update `observed` to match `desired`.

        Returns the stored object; this is `observed` itself if there was nothing to write. `owner` is the MLflowServer
        as read from the cluster. A disposable object gets an ownerReference to it, even if it was restored from a
        backup of the cluster without one; a data object (`data`) does not. A data object is created once and its values
        are never changed; only a PersistentVolumeClaim is resized if the desired size is larger. `is_absent`: the
        caller has just requested the object by name, and there is none; it is then created without another request.
        For a data object, raises AlreadyExists if it exists by now.

        Raises NameConflictError, BeingDeletedError, ApplyConflictError, and the errors of `KubernetesClient`.
        """
        owned = desired if data else _with_owner_reference(desired, owner)
        if observed is None and not data and (is_absent or self._may_create_unread(desired, owner)):
            try:
                return self._created(owned, await self._cluster.apply_new(_with_digest(owned)), owner)
            except AlreadyExists:
                self._used_names[_server(owner)].add(_kind_and_name(desired))
        if observed is None and not (data and is_absent):
            # Read again by name: the list by label does not contain an object of another owner, and an apply would take
            # that object over.
            observed = await self._cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
        if observed is not None:
            check_ownership(observed, owner, data=data)
        if data:
            return await self._ensure_data(desired, observed)
        if observed is None:
            return self._created(owned, await self._cluster.apply(_with_digest(owned)), owner)
        updated = await self._update(owned, observed, owner)
        return await self._own_fields(updated) if is_adoptable(observed, owner) else updated

    async def ensure_job(self, desired: Object, observed: Object | None, owner: Object) -> Object | None:
        """Create a Job if it does not exist. An existing Job is never changed: its name identifies its inputs.

        A Job without a controller, from a backup of the cluster, is adopted if its pods are exactly the desired ones.
        Otherwise its success would be taken for a migration that never ran.

        Returns the created Job, or None if it existed. Raises the same errors as `ensure` except ApplyConflictError.
        """
        if observed is None:
            try:
                created = await self._cluster.create(_with_owner_reference(desired, owner))
            except AlreadyExists:
                observed = await self._cluster.get(kinds.of(desired), _namespace(desired), _name(desired))
            else:
                logger.info("created %s", _describe(desired))
                return created
        if observed is not None:
            check_ownership(observed, owner, data=False)
            await self.adopt_job(desired, observed, owner)
        return None

    async def adopt_job(self, desired: Object, observed: Object, owner: Object) -> Object:
        """Adopt an existing Job that has no controller, as `ensure_job` does. Does nothing if it belongs to `owner`.

        The result of a Job must not be used before. Returns the stored Job. Raises NameConflictError and
        BeingDeletedError.
        """
        if belongs_to(observed, owner, data=False):
            return observed
        check_ownership(observed, owner, data=False)
        if not has_desired_pod_template(desired, observed):
            conflict = ownership.NameConflict(
                observed["kind"], _name(observed), ownership.Cause.OTHER_POD_TEMPLATE
            )
            raise NameConflictError(conflict, owner)
        return await self.adopt(observed, owner)

    async def adopt(self, observed: Object, owner: Object) -> Object:
        """Make `owner` the controller of a disposable object without a controller. Returns the stored object.

        Raises Conflict if the object has changed since it was read.
        """
        references = [*(observed["metadata"].get("ownerReferences") or ()), _owner_reference(owner)]
        adopted = await self._cluster.json_patch(
            kinds.of(observed),
            _namespace(observed),
            _name(observed),
            [
                json_patch.unchanged(observed),
                json_patch.put(json_patch.pointer("metadata", "ownerReferences"), references),
            ],
        )
        logger.info("adopted %s", _describe(observed))
        return adopted

    async def remove_instance_label(self, observed: Object, owner: Object) -> Object:
        """Remove the label `labels.INSTANCE` from a data object of `owner` if its value is the server's name.

        Earlier versions of the operator set it. Returns the stored object; this is `observed` itself if there was
        nothing to write, or if another client sets the label again and again. Raises Conflict if the object has changed
        since it was read.
        """
        if (observed["metadata"].get("labels") or {}).get(labels.INSTANCE) != _name(owner):
            return observed
        paths = [schema_fields.child_path("metadata.labels", labels.INSTANCE)]
        if self._backoff.request_update(observed["metadata"]["uid"], hash(labels.INSTANCE), paths):
            return observed
        patched = await self._cluster.json_patch(
            kinds.of(observed),
            _namespace(observed),
            _name(observed),
            [
                json_patch.unchanged(observed),
                json_patch.remove(json_patch.pointer("metadata", "labels", labels.INSTANCE)),
            ],
        )
        logger.info("removed the label %s from %s", labels.INSTANCE, _describe(observed))
        return patched

    async def prune(
        self, desired: Iterable[Object], observed: Iterable[Object], owner: Object
    ) -> list[Object]:
        """Delete the disposable objects in `observed` that belong to `owner` and are not in `desired`.

        Data objects have no ownerReference, so this function can never delete one. Returns the deleted objects.
        """
        desired_keys = {(kinds.of(obj), _name(obj)) for obj in desired}
        deleted = []
        for obj in observed:
            if (kinds.of(obj), _name(obj)) in desired_keys or not (
                has_labels(obj, owner) and belongs_to(obj, owner, data=False)
            ):
                continue
            if obj["metadata"].get("deletionTimestamp"):
                continue
            await self._cluster.delete(obj)
            logger.info("deleted %s, which is no longer desired", _describe(obj))
            deleted.append(obj)
        return deleted

    def forget_server(self, server: NamespacedName) -> None:
        """Free the memory for a server that does not exist any more."""
        self._admitted.forget_server(server)
        self._used_names.pop(server, None)

    def _may_create_unread(self, desired: Object, owner: Object) -> bool:
        """Whether to create an object without reading it first: if it exists, the API server changes nothing.

        If it existed before, each attempt would be a rejected write, in each reconcile until the name is free.
        """
        is_used = _kind_and_name(desired) in self._used_names[_server(owner)]
        return kinds.of(desired) in _CREATED_UNREAD and not is_used

    def _created(self, desired: Object, created: Object, owner: Object) -> Object:
        logger.info("created %s", _describe(desired))
        self._used_names[_server(owner)].discard(_kind_and_name(desired))
        self._accept_admission(desired, created, owner)
        return created

    async def _update(self, desired: Object, observed: Object, owner: Object) -> Object:
        differences = diff.drift(desired, observed)
        unmanaged = removals(desired, observed)
        secret = desired["kind"] == "Secret"
        digest_matches = secret or _last_applied_digest(observed) == diff.digest(desired)
        if digest_matches and not differences and not unmanaged:
            return observed
        if digest_matches and self._admitted.is_unchanged(_server(owner), desired, observed):
            return observed
        if digest_matches:
            paths = sorted({*differences, *(patch_op.field for patch_op in unmanaged)})
            self._check_backoff(observed, desired, paths)
        result, is_own_write = observed, True
        # A changed union member must be replaced before the apply, which the API server would reject otherwise.
        if _replacements(desired, observed):
            result, is_own_write = await self._apply_patch(desired, observed, _replacements)
        if differences or not digest_matches:
            # With the uid the API server rejects the apply if another object has taken the name.
            result = await self._cluster.apply(_with_digest(desired, uid=observed["metadata"]["uid"]))
            is_own_write = True
        if removals(desired, result):
            result, is_first_attempt = await self._apply_patch(desired, result, removals)
            is_own_write = is_own_write and is_first_attempt
        paths = [*differences, *(patch_op.field for patch_op in unmanaged)]
        logger.info(
            "updated %s: %s",
            _describe(desired),
            ", ".join(dict.fromkeys(paths)) or "the desired state changed",
        )
        if is_own_write:
            self._accept_admission(desired, result, owner)
        return result

    def _accept_admission(self, desired: Object, stored: Object, owner: Object) -> None:
        """Accept what differs in the response to the operator's own write: only admission controllers changed it."""
        paths = [*diff.drift(desired, stored), *(patch_op.field for patch_op in removals(desired, stored))]
        if not paths:
            self._admitted.forget(_server(owner), stored)
        elif self._admitted.record(_server(owner), desired, stored):
            logger.warning(
                "%s: an admission controller of the cluster changes %s; the operator accepts this",
                _describe(desired),
                ", ".join(dict.fromkeys(paths)),
            )

    async def _own_fields(self, adopted: Object) -> Object:
        """Become the only owner of the applied fields of an object that another client has created."""
        managed_fields = without_shared_fields(adopted, FIELD_MANAGER)
        if managed_fields is None:
            return adopted
        return await self._cluster.json_patch(
            kinds.of(adopted),
            _namespace(adopted),
            _name(adopted),
            [
                json_patch.unchanged(adopted),
                json_patch.replace(json_patch.pointer("metadata", "managedFields"), managed_fields),
            ],
        )

    async def _apply_patch(
        self,
        desired: Object,
        observed: Object,
        patch_ops: Callable[[Object, Object], list[PatchOp]],
    ) -> tuple[Object, bool]:
        """Apply the JSON patch that `patch_ops` computes, and compute it again after a conflict.

        List indexes are valid for one resourceVersion only. A controller that reacts to the change at the same time
        (with a status update, for example) creates a new version; the object is then read again.

        Returns the stored object, and whether there was no conflict. Otherwise, it contains what others have changed in
        the meantime.
        """
        for attempt in range(_MAX_PATCH_ATTEMPTS):
            operations = [op.as_json() for op in patch_ops(desired, observed)]
            if not operations:
                return observed, attempt == 0
            try:
                patched = await self._cluster.json_patch(
                    kinds.of(observed),
                    _namespace(observed),
                    _name(observed),
                    [json_patch.unchanged(observed), *operations],
                )
            except Conflict:
                last_attempt = attempt == _MAX_PATCH_ATTEMPTS - 1
                fresh = await self._cluster.get(kinds.of(observed), _namespace(observed), _name(observed))
                if last_attempt or fresh is None or fresh["metadata"]["uid"] != observed["metadata"]["uid"]:
                    raise
                observed = fresh
            else:
                return patched, attempt == 0
        raise AssertionError("the last attempt returns or raises")

    async def _ensure_data(self, desired: Object, observed: Object | None) -> Object:
        if observed is None:
            created = await self._cluster.create(desired)
            logger.info("created %s", _describe(desired))
            return created
        if desired["kind"] != "PersistentVolumeClaim":
            return observed
        size = desired["spec"]["resources"]["requests"]["storage"]
        if quantity.compare(size, observed["spec"]["resources"]["requests"]["storage"]) <= 0:
            return observed
        if (observed.get("status") or {}).get("phase") != "Bound":
            # The API server rejects a resize until the claim is bound. The watch reports the binding, which triggers
            # the next reconcile.
            return observed
        resize = {
            "apiVersion": desired["apiVersion"],
            "kind": desired["kind"],
            "metadata": {key: desired["metadata"][key] for key in ("name", "namespace")},
            "spec": {"resources": {"requests": {"storage": size}}},
        }
        resize["metadata"]["uid"] = observed["metadata"]["uid"]
        resized = await self._cluster.apply(resize)
        logger.info("resized %s to %s", _describe(desired), size)
        return resized

    def _check_backoff(self, observed: Object, desired: Object, paths: list[str]) -> None:
        # Safe for a Secret: this hash stays in the process, and it is salted differently in each process.
        desired_hash = hash(json.dumps(desired, sort_keys=True))
        seconds = self._backoff.request_update(observed["metadata"]["uid"], desired_hash, paths)
        if not seconds:
            return
        managers = schema_fields.other_managers(observed, paths, FIELD_MANAGER)
        manager_list = f" ({', '.join(managers)})" if managers else ""
        kind, name = observed["kind"], _name(observed)
        raise ApplyConflictError(
            f'{kind} "{name}": another client{manager_list} reverts {", ".join(paths)} each time the operator sets it. '
            f"Stop that client, or set the value in the MLflowServer.{'' if managers else _ADMISSION_HINT}"
        )


def _replacements(desired: Object, observed: Object) -> list[PatchOp]:
    return [patch_op for patch_op in removals(desired, observed) if patch_op.value is not None]


def _owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": kinds.MLFLOWSERVER.api_version,
        "kind": kinds.MLFLOWSERVER.kind,
        "name": _name(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _with_owner_reference(desired: Object, owner: Object) -> Object:
    return {**desired, "metadata": {**desired["metadata"], "ownerReferences": [_owner_reference(owner)]}}


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


def _kind_and_name(obj: Object) -> tuple[str, str]:
    return str(obj["kind"]), _name(obj)


def _server(owner: Object) -> NamespacedName:
    return _namespace(owner), _name(owner)


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _namespace(obj: Object) -> str:
    return str(obj["metadata"]["namespace"])


def _describe(obj: Object) -> str:
    return f"{obj['kind']} {_namespace(obj)}/{_name(obj)}"
