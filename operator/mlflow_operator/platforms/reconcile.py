"""The reconcile of one MLflowPlatform: check its stores with the administrators' credentials, and write its status.

Owns: the status; the finalizer; the bucket, if `bucketCreation` allows the operator to create it, and its settings.
"""

from collections.abc import Collection, Mapping

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.component import RETRY_USER_ERROR_SECONDS
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import Reader
from mlflow_operator.framework.reconcile_result import ReconcileResult
from mlflow_operator.kube import finalizer, kinds, labels
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import Platform, defaults_for, resolve_platform
from mlflow_operator.platforms.checks import Checks
from mlflow_operator.platforms.stores import StoreChecks
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    ready_condition,
)

_READY_MESSAGE = "All stores of the platform are ready."
_MAX_NAMED_SERVERS = 10


async def reconcile(
    name: str, deps: Dependencies, checks: Checks, watched_namespaces: Collection[str] = ()
) -> ReconcileResult:
    """Check one platform and write its status.

    `watched_namespaces` are those of the operator, all if empty. A platform that selects none of them is left to other
    operators: two operators would otherwise overwrite the status of each other if only one may read the Secrets.
    """
    resource = await deps.cluster.get(kinds.MLFLOWPLATFORM, None, name)
    if resource is None:
        checks.forget(name)
        return ReconcileResult(None)
    if resource["metadata"].get("deletionTimestamp"):
        return await _finalize(resource, deps)
    if not watched_namespaces and not finalizer.is_present(resource, labels.PLATFORM_FINALIZER):
        resource = await finalizer.add(resource, deps.cluster, labels.PLATFORM_FINALIZER)
    try:
        platform = resolve_platform(mlflowplatform.parse(resource))
    except InvalidResource as error:
        message = f"{str(error).rstrip('.')}. Reconciliation is paused until this is fixed."
        ready = false_condition(ConditionType.READY, Reason.INVALID_RESOURCE, message)
        return await _report(resource, [ready], _used_adoptions(resource), deps)
    namespaces = await _labels_of(watched_namespaces, deps) if watched_namespaces else None
    if namespaces is not None and not any(map(platform.selects, namespaces.values())):
        # Not None: a namespace may be selected later, without an event of the platform.
        return ReconcileResult(ConditionStatus.UNKNOWN.value)
    conditions = await _check_stores(platform, deps, checks)
    conflict = await _default_conflict(platform, namespaces, deps)
    ready = conflict or ready_condition(conditions, _READY_MESSAGE)
    used = [entry for entry in _used_adoptions(resource) if entry["server"] in platform.adoptions]
    is_default = platform.is_default and conflict is None
    return await _report(resource, [ready, *conditions], used, deps, is_default=is_default)


async def _check_stores(platform: Platform, deps: Dependencies, checks: Checks) -> list[Condition]:
    # A platform keeps no objects of servers, so that the memory of its Secrets is enough.
    async with deps.memory.reserve(platform.secrets_namespace, 0) as memory:
        reader = Reader(deps.cluster, platform.secrets_namespace, {}, memory)
        stores = StoreChecks(platform.name, reader, checks, deps)
        conditions: list[Condition] = []
        if platform.database:
            conditions.append(await stores.database(platform.database))
        if platform.artifacts:
            conditions.append(await stores.artifacts(platform.artifacts))
    return conditions


async def _finalize(resource: Object, deps: Dependencies) -> ReconcileResult:
    """Let the platform be deleted once no server uses it.

    Without it, the credentials of its servers could not be rotated any more, and their data could not be deleted. An
    operator that watches selected namespaces does not know all servers: it neither adds nor removes the finalizer.
    """
    if not finalizer.is_present(resource, labels.PLATFORM_FINALIZER):
        return ReconcileResult(None)
    try:
        servers = await deps.cluster.list(kinds.MLFLOWSERVER)
    except Forbidden:
        return ReconcileResult(ConditionStatus.UNKNOWN.value)
    name = resource["metadata"]["name"]
    users = sorted(
        f"{server['metadata']['namespace']}/{server['metadata']['name']}"
        for server in servers
        if _uses(server, name)
    )
    if not users:
        await finalizer.remove(resource, deps.cluster, labels.PLATFORM_FINALIZER)
        return ReconcileResult(None)
    more = " and others" if len(users) > _MAX_NAMED_SERVERS else ""
    message = (
        f"The platform is being deleted, but servers use it: {', '.join(users[:_MAX_NAMED_SERVERS])}{more}. It stays "
        "until they are deleted, or use other stores and no spec.platformRef to it; new servers cannot use it."
    )
    ready = false_condition(ConditionType.READY, Reason.DELETION_BLOCKED, message)
    return await _report(resource, [ready], _used_adoptions(resource), deps)


def _uses(server: Object, platform: str) -> bool:
    """Whether a server has stores of the platform, or was admitted to it and still names it."""
    recorded = (server.get("status") or {}).get("platform") or {}
    reference = (server.get("spec") or {}).get("platformRef") or {}
    return recorded.get("name") == platform and bool(
        recorded.get("parts") or reference.get("name") == platform
    )


def _used_adoptions(resource: Object) -> list[Object]:
    """Return the entries of `spec.adoptions` that servers have used. The reconciles of the servers record them."""
    return [*((resource.get("status") or {}).get("adoptions") or ())]


async def _report(
    resource: Object,
    conditions: list[Condition],
    used_adoptions: list[Object],
    deps: Dependencies,
    *,
    is_default: bool = False,
) -> ReconcileResult:
    context = status_writer.status_context(resource, deps)
    status: Object = {
        "observedGeneration": context.generation,
        "conditions": context.conditions(conditions),
        "isDefault": is_default,
    }
    if used_adoptions:
        status["adoptions"] = used_adoptions
    await status_writer.write(resource, status, conditions, deps)
    ready = conditions[0]
    # The next reconcile reads the Secrets again. The stores are checked once a minute.
    return ReconcileResult(ready.status.value, None if ready.is_true else RETRY_USER_ERROR_SECONDS)


async def _labels_of(names: Collection[str], deps: Dependencies) -> Mapping[str, Mapping[str, str]]:
    """Return the labels of namespaces, by their names. Those that do not exist are omitted."""
    found = {}
    for name in names:
        try:
            namespace = await deps.cluster.get(kinds.NAMESPACE, None, name)
        except Forbidden:
            # The Role that allows this request was deleted together with the namespace.
            continue
        if namespace:
            found[name] = namespace["metadata"].get("labels") or {}
    return found


async def _default_conflict(
    platform: Platform, namespaces: Mapping[str, Mapping[str, str]] | None, deps: Dependencies
) -> Condition | None:
    """Return the condition if another default platform selects the same namespace. `namespaces` None: all."""
    if not platform.is_default:
        return None
    defaults = [platform, *await _other_defaults(platform, deps)]
    if len(defaults) == 1:
        return None
    if namespaces is None:
        namespaces = await deps.cluster.list_labels(kinds.NAMESPACE)
    for namespace in sorted(namespaces):
        selecting = defaults_for(defaults, namespaces[namespace])
        others = [other for other in selecting if other is not platform]
        if platform in selecting and others:
            return false_condition(
                ConditionType.READY,
                Reason.DEFAULT_PLATFORM_CONFLICT,
                f'The default platforms "{platform.name}" and "{others[0].name}" share namespace {namespace}, so none '
                "of them is the default there. Narrow a spec.namespaceSelector, or remove the annotation "
                f"{mlflowplatform.DEFAULT_ANNOTATION} from one of them.",
            )
    return None


async def _other_defaults(platform: Platform, deps: Dependencies) -> list[Platform]:
    """Return the other default platforms, sorted by name. Invalid ones report their own condition."""
    found = []
    for resource in await deps.cluster.list(kinds.MLFLOWPLATFORM):
        try:
            found.append(resolve_platform(mlflowplatform.parse(resource)))
        except InvalidResource:
            continue
    others = (other for other in found if other.is_default and other.name != platform.name)
    return sorted(others, key=lambda other: other.name)
