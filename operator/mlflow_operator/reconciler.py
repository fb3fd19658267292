"""The reconcile of one MLflowServer: read the observed state, run the components in order, write the status.

A reconcile does not depend on the event that triggered it. It can be interrupted after any of its writes; the next
reconcile continues from the observed state.
"""

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from mlflow_operator import api, prune
from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.components.artifacts import reconcile as artifacts
from mlflow_operator.components.authentication import reconcile as authentication
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.credentials import reconcile as credentials
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import reconcile as database
from mlflow_operator.components.deletion.reconcile import finalize, sync_finalizer
from mlflow_operator.components.encryption import reconcile as encryption
from mlflow_operator.components.garbage_collection import reconcile as garbage_collection
from mlflow_operator.components.migration import reconcile as migration
from mlflow_operator.components.restore import reconcile as restore
from mlflow_operator.components.rotation import reconcile as rotation
from mlflow_operator.components.server import fast_path, pod_policy, storage_moved
from mlflow_operator.components.server import reconcile as server
from mlflow_operator.components.server.pod_policy import PodPolicy
from mlflow_operator.components.upgrade import reconcile as upgrade
from mlflow_operator.components.upgrade import version
from mlflow_operator.components.upgrade.status import in_progress
from mlflow_operator.framework import (
    adoption,
    data_labels,
    env_from_variables,
    jobs,
    platform_choice,
    status_writer,
)
from mlflow_operator.framework.component import RETRY_USER_ERROR_SECONDS, ReconcileContext, Result
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.memory_limit import Reservation
from mlflow_operator.framework.observe import INITIAL_MEMORY_BYTES, ObservedState, Reader, observe
from mlflow_operator.framework.platform_choice import Offer
from mlflow_operator.framework.reconcile_result import ReconcileResult
from mlflow_operator.framework.task_group import task_group
from mlflow_operator.kube import kinds
from mlflow_operator.kube.apply import is_adoptable
from mlflow_operator.kube.client import Forbidden, Invalid
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.model import authentication as auth_model
from mlflow_operator.model import owned_objects, provisioning, server_defaults
from mlflow_operator.model import status as status_model
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.names import Names
from mlflow_operator.model.platform import PlatformUse
from mlflow_operator.model.platform_choice import check_location
from mlflow_operator.model.platform_choice import names as platform_names
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.server import EncryptionKeys
from mlflow_operator.results import Prerequisites, Results
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ConfigurationError

A = TypeVar("A")
B = TypeVar("B")


async def reconcile(key: NamespacedName, deps: Dependencies) -> ReconcileResult:
    """Bring one server to the state that its spec describes.

    Raises unhandled errors of the API server and bugs of the operator; the work queue retries with backoff.
    """
    namespace, name = key
    resource = await deps.cluster.get(kinds.MLFLOWSERVER, namespace, name)
    if resource is None:
        # Kubernetes deletes the owned objects by their ownerReferences. Data is retained.
        deps.applier.forget_server(key)
        return ReconcileResult(None)
    if resource["metadata"].get("deletionTimestamp"):
        requeue_after = await finalize(resource, deps)
        ready = None if requeue_after is None else ConditionStatus.FALSE.value
        return ReconcileResult(ready, requeue_after, platform_names(resource))
    try:
        parsed = api.parse(resource)
    except api.InvalidResource as error:
        return await _reject(resource, Reason.INVALID_RESOURCE, str(error), deps)
    try:
        deletes_data = parsed.spec.deletion_policy is api.DeletionPolicy.DELETE
        resource = await sync_finalizer(resource, deletes_data, deps)
    except (Forbidden, Invalid) as error:
        return await _reject(resource, Reason.OPERATION_REFUSED, str(error), deps)
    try:
        offer = await platform_choice.find(parsed, deps)
    except ConfigurationError as error:
        return await _reject(resource, error.reason, error.message, deps, RETRY_USER_ERROR_SECONDS)
    return await _reconcile_valid(resource, parsed, offer, deps)


async def _reconcile_valid(
    resource: Object, parsed: api.MLflowServer, offer: Offer, deps: Dependencies
) -> ReconcileResult:
    namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
    async with deps.memory.reserve(namespace, INITIAL_MEMORY_BYTES) as memory:
        try:
            observed = await observe(resource, deps.cluster, memory)
        except ConfigurationError as error:
            return await _reject(resource, error.reason, error.message, deps)
        try:
            observed, platform = await platform_choice.choose(offer, observed, parsed, deps)
            resource = observed.resource
            parsed = server_defaults.apply(parsed, _platform_defaults(resource))
        except ConfigurationError as error:
            return await _reject(resource, error.reason, error.message, deps, RETRY_USER_ERROR_SECONDS)
        try:
            orphaned = await _deleted_with_orphans(observed, deps)
            context = None if orphaned else await _context(observed, parsed, platform, deps, memory)
        except ConfigurationError as error:
            return await _reject(resource, error.reason, error.message, deps)
        if context:
            await jobs.record_outcomes(context)
            context, results = await _run_components(context)
            try:
                adopts = platform is not None and await _uses_adoption(context, results, platform)
            except ConfigurationError as error:
                return await _reject(resource, error.reason, error.message, deps, RETRY_USER_ERROR_SECONDS)
            if not adopts:
                return await _report(context, results)
    return await reconcile((namespace, name), deps)


async def _uses_adoption(context: ReconcileContext, results: Results, platform: PlatformUse) -> bool:
    """Whether an entry in `spec.adoptions` of the platform now allows what a component was refused."""
    return results.requires_adoption and await adoption.record_use(
        platform, context.server.owner, context.deps
    )


async def _context(
    observed: ObservedState,
    parsed: api.MLflowServer,
    platform: PlatformUse | None,
    deps: Dependencies,
    memory: Reservation,
) -> ReconcileContext:
    name = observed.resource["metadata"]["name"]
    observed = await data_labels.remove_instance_labels(observed, deps)
    namespace = observed.resource["metadata"]["namespace"]
    reader = Reader(deps.cluster, namespace, observed.owned, memory, deps.shared_reads)
    sources = [source.manifest() for source in parsed.spec.env_from]
    variables = await env_from_variables.names(sources, reader)
    defaults = cluster_defaults(
        deps.images,
        deps.cluster_domain,
        observed.get(kinds.SERVICE, name),
        observed.get(kinds.DEPLOYMENT, name),
    )
    taken = _platform_defaults(observed.resource)
    defaults = replace(defaults, default_version=taken.get("version") or defaults.default_version)
    defaults = defaults.with_encryption(observed.get(kinds.SECRET, Names(name).encryption_secret), variables)
    server = resolve(parsed, defaults, platform)
    if auth_model.must_wait(server, observed.get(kinds.DEPLOYMENT, name)):
        server = auth_model.withheld(server, is_withheld=True)
    check_location(server, observed.status)
    provisioning.check_limit(server)
    return ReconcileContext(observed, server, reader, deps)


async def _deleted_with_orphans(observed: ObservedState, deps: Dependencies) -> bool:
    """Whether the MLflowServer was deleted after it was read, and its objects must be kept.

    `kubectl delete --cascade=orphan` removes the owner references of the objects. If the operator took these objects
    for objects from a backup of the cluster and adopted them, Kubernetes would delete them.
    """
    resource = observed.resource
    names = Names(resource["metadata"]["name"])
    owned = (observed.get(kind, name) for kind, name in owned_objects.all_disposable(names))
    if not any(obj and is_adoptable(obj, resource) for obj in owned):
        return False
    metadata = resource["metadata"]
    current = await deps.cluster.get(kinds.MLFLOWSERVER, metadata["namespace"], metadata["name"])
    return (
        current is None
        or current["metadata"]["uid"] != metadata["uid"]
        or bool(current["metadata"].get("deletionTimestamp"))
    )


async def _run_components(context: ReconcileContext) -> tuple[ReconcileContext, Results]:
    """Run the components in order. Each takes what earlier ones resolved, and waits if that is missing."""
    keys = await credentials.reconcile(context)
    context = _with_encryption(context, keys.value.encryption if keys.value else None)
    if server.can_serve_now(context, keys.value):
        # Drift of a running server is repaired even while a store does not answer.
        (context, stores), running = await _concurrently(
            _run_prerequisites(context, keys.value), server.reconcile(context, keys.value, PodPolicy.DESIRED)
        )
    else:
        context, stores = await _run_prerequisites(context, keys.value)
        unmet = pod_policy.unmet_dependency(context, stores.artifacts, stores.schema, stores.authentication)
        policy = PodPolicy.DESIRED if unmet is None else _restricted_policy(context, keys.value, stores)
        running = await server.reconcile(context, keys.value, policy, unmet)
    rotation_result = await rotation.reconcile(context, keys, stores.are_ready, running.value)
    backup_result = await backup.reconcile(context, keys.value)
    collection_result = await garbage_collection.reconcile(context, running.value)
    return context, Results(keys, stores, running, rotation_result, backup_result, collection_result)


async def _run_prerequisites(
    context: ReconcileContext, keys: Credentials | None
) -> tuple[ReconcileContext, Prerequisites]:
    """Run the components that the server pods depend on. The context that is returned has the version to run."""
    # Concurrently, so that neither store waits for the pod or the connection timeout of the other.
    database_result, artifacts_result = await _concurrently(
        database.reconcile(context, keys), artifacts.reconcile(context, keys)
    )
    context = version.with_schema_version(context, database_result.value)
    switching, artifacts_ready = bool(keys and keys.switches_database), artifacts_result.condition.is_true
    restore_result = await restore.reconcile(context, database_result.value, artifacts_ready, switching)
    plan = await upgrade.reconcile(context, database_result.value, restore_result, artifacts_ready, switching)
    context = version.with_image_version(context, plan.value)
    schema = await migration.reconcile(context, database_result.value, restore_result, plan.value, switching)
    encrypted = await encryption.reconcile(
        context,
        database_result.value,
        schema_ready=schema.condition.is_true,
        switching_database=switching,
    )
    context = _with_encryption(context, encrypted.value)
    accounts = await authentication.reconcile(
        context, keys, database_result.value, schema_ready=schema.condition.is_true
    )
    context = _with_accounts(context, accounts)
    return context, Prerequisites(database_result, artifacts_result, plan, schema, encrypted, accounts)


def _with_encryption(context: ReconcileContext, keys: EncryptionKeys | None) -> ReconcileContext:
    return replace(context, server=replace(context.server, encryption=keys)) if keys else context


def _with_accounts(context: ReconcileContext, accounts: Result[Accounts] | None) -> ReconcileContext:
    """The context in which the pods require authentication if the accounts are ready."""
    if accounts is None or accounts.value is None:
        return context
    return replace(context, server=auth_model.withheld(context.server, is_withheld=False))


def _restricted_policy(
    context: ReconcileContext, keys: Credentials | None, stores: Prerequisites
) -> PodPolicy:
    return pod_policy.choose(
        context,
        stores.database.value,
        stores.upgrade_plan.value,
        stores.schema,
        switching_database=bool(keys and keys.switches_database),
    )


async def _concurrently(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    async with task_group() as group:
        first_task, second_task = group.create_task(first), group.create_task(second)
    return first_task.result(), second_task.result()


async def _report(context: ReconcileContext, results: Results) -> ReconcileResult:
    """Delete what is no longer desired, and write the status and the Events."""
    resource = context.observed.resource
    conditions, status_patch = results.conditions(), results.status_patch(context)
    ready = conditions[0]
    if ready.is_true:
        await prune.run(context, upgrading=in_progress(status_patch["upgrade"]))
    await storage_moved.publish_event(context, status_patch)
    await fast_path.publish_event(context, status_patch)
    await authentication.publish_event(context, results.server.value)
    status_context = status_writer.status_context(resource, context.deps)
    status = status_model.status(context.server, status_patch, conditions, status_context)
    await status_writer.write(resource, status, conditions, context.deps)
    await garbage_collection.publish_event(context, results.garbage_collection)
    return ReconcileResult(ready.status.value, results.requeue_after, platform_names(resource))


def _platform_defaults(resource: Object) -> Object:
    """Return the defaults that the server took from a platform when it was created; empty if it took none."""
    taken: Object = (resource.get("status") or {}).get("platformDefaults") or {}
    return taken


async def _reject(
    resource: Object, reason: Reason, cause: str, deps: Dependencies, requeue_after: float | None = None
) -> ReconcileResult:
    message = f"{cause.rstrip('.')}. Reconciliation is paused until this is fixed."
    ready = false_condition(ConditionType.READY, reason, message)
    status = status_model.rejected_status(ready, status_writer.status_context(resource, deps))
    await status_writer.write(resource, status, [ready], deps)
    return ReconcileResult(ConditionStatus.FALSE.value, requeue_after, platform_names(resource))
