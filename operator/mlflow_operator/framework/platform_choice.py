"""Finds the platform that a server uses, and records the choice before anything is created. Checks the policies of all
platforms that select the namespace, whichever of them the server uses.

Platforms and the namespace are requested directly: a watch may not know a platform yet that was created together with
the server, the choice is final, and a policy must apply from the first pod. Each reconcile makes one request if there
are no platforms, and a second one for the namespace if there are. What an earlier server of the same name left behind
is known from the observed state.

Once the choice is recorded, a reconcile may use the platforms that another one has read within the last second. An
edit of a platform then counts up to a second later, and not after its watch event.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.label_selector import LabelSelector
from mlflow_operator.api.mlflowserver import StorageChangePolicy
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import ObservedState
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Conflict, Forbidden, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import label_selector, platform_choice, platform_policy, secrets, server_defaults
from mlflow_operator.model.names import Names
from mlflow_operator.model.platform import Part, Platform, PlatformUse, defaults_for, resolve_platform
from mlflow_operator.model.platform_choice import FIELDS, Request
from mlflow_operator.model.server import PlatformOrigin, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


@dataclass(frozen=True)
class Offer:
    """What a server requests of platforms, the platform that it would use, and what all platforms say about it.

    `resources`: all MLflowPlatforms; `selecting`: those that select the namespace. `namespace` is empty if there are no
    platforms.
    """

    requested: Request | None
    platform: Platform | None = None
    resources: Sequence[Object] = ()
    selecting: Sequence[Platform] = ()
    namespace: Object = field(default_factory=dict)

    def find(self, name: str) -> Object | None:
        """Return the platform of this name, which need not select the namespace."""
        return next((found for found in self.resources if found["metadata"]["name"] == name), None)

    def defaults(self) -> list[Platform]:
        """Return the default platforms of the namespace. One that is being deleted accepts no new servers."""
        return [platform for platform in self._all_defaults() if not self._is_deleted(platform)]

    def deleted_default(self) -> Platform | None:
        """Return a default platform that is being deleted, None if there is none or another default remains."""
        return None if self.defaults() else next(iter(self._all_defaults()), None)

    def _all_defaults(self) -> list[Platform]:
        return defaults_for(self.selecting, _labels_of(self.namespace))

    def _is_deleted(self, platform: Platform) -> bool:
        resource = self.find(platform.name)
        return resource is not None and bool(resource["metadata"].get("deletionTimestamp"))


async def find(parsed: api.MLflowServer, deps: Dependencies) -> Offer:
    """Return the platform that a server would use, and all others that limit it.

    Raises ConfigurationError if the server must wait for a platform. Its objects need not be observed then.
    """
    requested = platform_choice.request(parsed)
    namespace = parsed.metadata.namespace
    try:
        offer = await _offer(requested, parsed, deps)
    except Forbidden as error:
        if requested:
            raise _not_readable(error) from None
        # Installed without the role for platforms: none can limit the server, which goes on as before.
        return Offer(None)
    return replace(offer, platform=_find(requested, namespace, offer)) if requested else offer


async def choose(
    offer: Offer, observed: ObservedState, parsed: api.MLflowServer, deps: Dependencies
) -> tuple[ObservedState, PlatformUse | None]:
    """Return the observed state, with the choice recorded in the status, and what the server uses of a platform.

    Raises ConfigurationError if the server must wait: nothing is created or changed then.
    """
    requested, platform, resource = offer.requested, offer.platform, observed.resource
    parts: frozenset[Part] = frozenset()
    retained: frozenset[Part] = frozenset()
    if requested and platform:
        retained = _retained(requested, platform, observed)
        parts = requested.parts(platform) - retained
    elif requested:
        _check_no_deleted_default(requested, offer, observed)
    taken = _taken_defaults(parsed, platform, offer) if platform_choice.takes_defaults(parsed) else {}
    recorded = observed.status.get("platformDefaults") or {}
    try:
        await _check_policies(parsed, offer.selecting, parts, taken.get("platformDefaults") or recorded, deps)
    except Forbidden as error:
        if requested:
            raise _not_readable(error) from None
        return observed, None
    uses = PlatformUse(platform, parts, _uid_of(offer.namespace)) if platform and parts else None
    meta = parsed.metadata
    owner = ServerRef(meta.name, meta.namespace, meta.uid)
    # Before the choice is recorded, because it is final.
    if requested and offer.resources and requested.is_new:
        _check_earlier_stores((requested.explicit | requested.open) - retained, uses, owner, parsed, observed)
    if requested and uses:
        platform_choice.check_taken_over(requested.added, uses, owner, observed.status)
    record: Object = {}
    if requested and platform and (requested.recorded is not None or parts or requested.name):
        parts_text = sorted(part.value for part in parts)
        record["platform"] = {"name": platform.name, "uid": platform.uid, "parts": parts_text}
    record |= taken
    if any(observed.status.get(field) != value for field, value in record.items()):
        observed = replace(observed, resource=await status_writer.write_ahead(resource, record, deps))
    return observed, uses


def _not_readable(error: Forbidden) -> ConfigurationError:
    return ConfigurationError(
        Reason.OPERATION_REFUSED,
        f"The operator is not allowed to read what decides about the platform of the server: {error}. Install its "
        "chart with all of its roles.",
    )


def _taken_defaults(parsed: api.MLflowServer, platform: Platform | None, offer: Offer) -> Object:
    """Return the field of the status with the defaults that a new server takes: those of its platform, or else those
    of the only default platform of the namespace.
    """
    sources = [platform] if platform else offer.defaults()
    taken = server_defaults.taken(parsed.spec, sources[0]) if len(sources) == 1 else {}
    return {"platformDefaults": taken} if taken else {}


def _check_no_deleted_default(requested: Request, offer: Offer, observed: ObservedState) -> None:
    """Raise ConfigurationError if the server would use a default platform, were it not about to be deleted.

    Other stores would be chosen for ever, while the platform can remain, or be created again.
    """
    platform = offer.deleted_default()
    if platform is None:
        return
    if requested.parts(platform) - _retained(requested, platform, observed):
        namespace = observed.resource["metadata"]["namespace"]
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{platform.name}", the default of namespace {namespace}, is being '
            "deleted, and the choice of other stores could not be changed later. Name another platform in "
            "spec.platformRef, set spec.database and spec.artifacts, or wait until the platform is deleted.",
        )


async def _check_policies(
    parsed: api.MLflowServer,
    selecting: Sequence[Platform],
    parts: frozenset[Part],
    platform_defaults: Object,
    deps: Dependencies,
) -> None:
    created: dict[str, str] = {}
    if platform_policy.counts_servers(selecting):
        created = await deps.cluster.list_creation_times(kinds.MLFLOWSERVER, parsed.metadata.namespace)
    images = platform_policy.default_images_of(parsed.spec, parts, deps.images, platform_defaults)
    message = platform_policy.violations(parsed, selecting, parts, created, images)
    if message:
        raise ConfigurationError(Reason.POLICY_VIOLATION, message)


async def recorded(parsed: api.MLflowServer, deps: Dependencies) -> PlatformUse | None:
    """Return what a server that is being deleted uses of a platform.

    The platform need not select the namespace any more: what was created there must be deleted. Raises
    ConfigurationError if the platform does not exist.
    """
    if parsed.status.platform is None or not parsed.status.platform.parts:
        return None
    platform = await _get(parsed.status.platform.name, deps)
    namespace = await _namespace(parsed.metadata.namespace, deps)
    parts = frozenset(part for part in Part if part in parsed.status.platform.parts)
    missing = sorted(parts - platform.parts)
    if missing:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{platform.name}" no longer has the store of the server ({missing[0]}), whose data is to '
            "be deleted there. Ask its administrator to restore it.",
        )
    return PlatformUse(platform, parts, _uid_of(namespace)) if parts else None


async def check_namespace(origin: PlatformOrigin | None, namespace: str, deps: Dependencies) -> None:
    """Raise Conflict if the namespace is no longer the one whose server may use the platform.

    For use between the write of a generated Secret and the grant of access with it. A reconcile can outlive its
    namespace: the Secret would be in one that was created again, and the access that of the deleted one.
    """
    if origin is None:
        return
    current = await deps.cluster.get(kinds.NAMESPACE, None, namespace)
    if current is None or _uid_of(current) != origin.namespace_uid:
        raise Conflict(f"namespace {namespace} was deleted during the reconcile")


class NamespaceCheck:
    """One `check_namespace` for all grants of a reconcile. It must start after the last generated Secret was written.

    The Secrets are then known to be in the namespace that may use the platform. One that is created again later has
    none of them, so that a later grant needs no other check.
    """

    def __init__(self) -> None:
        self._started: asyncio.Task[None] | None = None

    async def run(self, origin: PlatformOrigin | None, namespace: str, deps: Dependencies) -> None:
        """Check the namespace, or wait for the check that has started."""
        if origin is None:
            return
        if self._started is None:
            check = check_namespace(origin, namespace, deps)
            self._started = asyncio.create_task(check, name=f"check namespace {namespace}")
        await asyncio.shield(self._started)


def _find(requested: Request, namespace_name: str, offer: Offer) -> Platform | None:
    """Return the platform that a server uses, None if it requests none and there is no default."""
    if requested.name:
        platform = _named(requested.name, offer.find(requested.name), is_new=requested.recorded is None)
        return platform_choice.allowed(platform, namespace_name, _labels_of(offer.namespace))
    selecting = offer.defaults()
    if len(selecting) > 1:
        names = " and ".join(f'"{name}"' for name in sorted(platform.name for platform in selecting))
        raise ConfigurationError(
            Reason.DEFAULT_PLATFORM_CONFLICT,
            f"The default platforms {names} select namespace {namespace_name}, so none of them is the default here, "
            "and the choice could not be changed later. Name one of them in spec.platformRef, or set "
            "spec.database and spec.artifacts.",
        )
    if selecting:
        return selecting[0]
    if requested.is_required and not offer.deleted_default():
        field = FIELDS[min(requested.explicit)]
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f"{field}.platform requests the default platform, but no default MLflowPlatform selects namespace "
            f"{namespace_name}. Name a platform in spec.platformRef, ask its administrator for one, or configure "
            f"another store in {field}.",
        )
    return None


async def _get(name: str, deps: Dependencies) -> Platform:
    """Return the platform that a server has recorded."""
    return _named(name, await deps.cluster.get(kinds.MLFLOWPLATFORM, None, name))


def _named(name: str, resource: Object | None, *, is_new: bool = False) -> Platform:
    """Return a platform. `is_new`: the server does not use it yet, so it must not be about to be deleted."""
    if resource and is_new and resource["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{name}" is being deleted. Use another platform in spec.platformRef.',
        )
    if resource is None:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'There is no MLflowPlatform "{name}". Ask a cluster administrator to create it, or correct '
            "spec.platformRef.",
        )
    return _parse(resource)


async def _offer(requested: Request | None, parsed: api.MLflowServer, deps: Dependencies) -> Offer:
    namespace_name = parsed.metadata.namespace
    try:
        resources = await _platforms(requested, parsed, deps)
    except NotFound:
        resources = []  # Without its CRD, which an upgrade may have omitted, there is no platform.
    if not resources:
        return Offer(requested)
    namespace = await _namespace(namespace_name, deps)
    namespace_labels = _labels_of(namespace)
    selecting = [_parse(resource) for resource in resources if _may_select(resource, namespace_labels)]
    selecting = [platform for platform in selecting if platform.selects(namespace_labels)]
    return Offer(requested, None, resources, selecting, namespace)


async def _platforms(
    requested: Request | None, parsed: api.MLflowServer, deps: Dependencies
) -> Sequence[Object]:
    """Return all platforms. If the server only checks an earlier decision, they can be a second old.

    A decision must see a platform that was created together with the server. So must an adoption that was revoked: an
    entry for the server gives access to the data of others.
    """

    def read() -> Coroutine[Any, Any, Sequence[Object]]:
        return deps.cluster.list(kinds.MLFLOWPLATFORM)

    if platform_choice.is_decided(parsed, requested):
        shared = await deps.shared_reads.get(kinds.MLFLOWPLATFORM, read)
        server = str(ServerRef(parsed.metadata.name, parsed.metadata.namespace, ""))
        if not any(server in ((found.get("spec") or {}).get("adoptions") or ()) for found in shared):
            return shared
    return await deps.shared_reads.refresh(kinds.MLFLOWPLATFORM, read)


def forget_platforms(deps: Dependencies) -> None:
    """Let no later reconcile use platforms that were read before. For the event of a changed platform."""
    deps.shared_reads.forget(kinds.MLFLOWPLATFORM)


def _may_select(resource: Object, namespace_labels: dict[str, str]) -> bool:
    """Whether a platform selects a namespace with these labels, or has no valid selector.

    Another field of it may be invalid since an upgrade of the operator. Then the servers in its namespaces wait,
    because its policy is not known, but not those in other namespaces.
    """
    selector = (resource.get("spec") or {}).get("namespaceSelector")
    try:
        parsed = LabelSelector.model_validate(selector, by_alias=True, by_name=False)
    except ValidationError:
        return True
    return label_selector.resolve(parsed).selects(namespace_labels)


def _parse(resource: Object) -> Platform:
    try:
        return resolve_platform(mlflowplatform.parse(resource))
    except InvalidResource as error:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{resource["metadata"]["name"]}" is invalid: {str(error).rstrip(".")}. Ask its '
            "administrator to correct it.",
        ) from None


async def _namespace(name: str, deps: Dependencies) -> Object:
    namespace = await deps.cluster.get(kinds.NAMESPACE, None, name)
    if namespace is None:
        raise ConfigurationError(Reason.PLATFORM_NOT_FOUND, f"The namespace {name} does not exist any more.")
    return namespace


def _labels_of(namespace: Object) -> dict[str, str]:
    return {**((namespace.get("metadata") or {}).get("labels") or {})}


def _uid_of(namespace: Object) -> str:
    return str(namespace["metadata"]["uid"])


def _retained(requested: Request, platform: Platform, observed: ObservedState) -> frozenset[Part]:
    """Return the stores for which the spec sets no field and whose embedded volume of an earlier server exists.

    A server that is created again, or whose status was lost with the restore of a cluster backup, must find its data.
    """
    if not requested.is_new:
        return frozenset()
    names = Names(observed.resource["metadata"]["name"])
    claims = {Part.DATABASE: names.postgres_data, Part.ARTIFACTS: names.artifact_store_data}
    retained = set()
    for part in sorted(platform.parts & requested.open):
        if observed.get(kinds.PVC, claims[part]) is None:
            continue
        if requested.name:
            raise ConfigurationError(
                Reason.STORAGE_CHANGE_REFUSED,
                f'The PersistentVolumeClaim "{claims[part]}" contains data of an earlier server of this name, which '
                f"the server would not use on a platform. Set {FIELDS[part]}.embedded to {{}} to use it, or "
                f"{FIELDS[part]}.platform to {{}} to start on the platform without it.",
            )
        retained.add(part)
    return frozenset(retained)


def _check_earlier_stores(
    decided: frozenset[Part],
    uses: PlatformUse | None,
    owner: ServerRef,
    parsed: api.MLflowServer,
    observed: ObservedState,
) -> None:
    """Raise ConfigurationError if the Secret of an earlier server of this name leads to another store.

    A server that is created again, or whose status was lost with the restore of a cluster backup, would otherwise start
    with empty stores if another platform, or none, is the default by then.
    """
    if parsed.spec.storage_change_policy is StorageChangePolicy.ALLOW:
        return
    for part in sorted(decided):
        name = owner.names.database_secret if part is Part.DATABASE else owner.names.artifacts_secret
        secret = observed.get(kinds.SECRET, name)
        if secret is None:
            continue
        platform_choice.check_earlier_store(part, secrets.text_values(secret), uses, owner, name)
