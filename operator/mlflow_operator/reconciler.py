"""The reconcile of one MLflowServer: read the observed state, build the desired state, apply changes, write the status.

A reconcile does not depend on the event that triggered it. It can be interrupted after any of its writes; the next
reconcile continues from the observed state.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any, TypeVar

from mlflow_operator import api, prune
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.artifacts import reconcile as artifacts
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.credentials import reconcile as credentials
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import reconcile as database
from mlflow_operator.components.deletion.reconcile import finalize, sync_finalizer
from mlflow_operator.components.garbage_collection import reconcile as garbage_collection
from mlflow_operator.components.migration import preflight_step
from mlflow_operator.components.migration import reconcile as migration
from mlflow_operator.components.migration.plan import UpgradePlan, in_progress
from mlflow_operator.components.restore import manifests as restore_manifests
from mlflow_operator.components.restore import reconcile as restore
from mlflow_operator.components.rotation import reconcile as rotation
from mlflow_operator.components.server import reconcile as server
from mlflow_operator.components.server import storage_moved
from mlflow_operator.components.server.reconcile import PodPolicy
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import Reader, observe
from mlflow_operator.framework.previous_deployment import RunningServer
from mlflow_operator.framework.step import ReconcileContext, Result, waiting
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden, Invalid
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.model import status as status_model
from mlflow_operator.model import storage_location
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.versions import version_for_revision
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import ConditionStatus, ConditionType, Reason, false_condition

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class ReconcileResult:
    """Result of a reconcile.

    `ready`: status of the Ready condition; None if the server does not exist. `requeue_after`: seconds until the next
    reconcile; None if a watch event or the resync is early enough.
    """

    ready: str | None
    requeue_after: float | None = None


async def reconcile(key: NamespacedName, deps: Dependencies) -> ReconcileResult:
    """Bring one server to the state that its spec describes.

    Raises unhandled errors of the API server and bugs of the operator; the work queue retries with backoff.
    """
    namespace, name = key
    resource = await deps.cluster.get(kinds.MLFLOWSERVER, namespace, name)
    if resource is None:
        # Kubernetes deletes the owned objects by their ownerReferences. Data is retained.
        return ReconcileResult(None)
    if resource["metadata"].get("deletionTimestamp"):
        requeue_after = await finalize(resource, deps)
        return ReconcileResult(None if requeue_after is None else ConditionStatus.FALSE.value, requeue_after)
    try:
        parsed = api.parse(resource)
    except api.InvalidResource as error:
        return await _reject(resource, Reason.INVALID_RESOURCE, str(error), deps)
    try:
        resource = await sync_finalizer(
            resource, parsed.spec.deletion_policy is api.DeletionPolicy.DELETE, deps
        )
    except (Forbidden, Invalid) as error:
        return await _reject(resource, Reason.OPERATION_REFUSED, str(error), deps)
    observed = await observe(resource, deps.cluster)
    defaults = cluster_defaults(deps.images, deps.cluster_domain, observed.get(kinds.SERVICE, name))
    context = ReconcileContext(observed, resolve(parsed, defaults), Reader(deps.cluster, namespace), deps)

    storage_change_allowed = parsed.spec.storage_change_policy.value == "Allow"
    credentials_result = await credentials.reconcile(context, storage_change_allowed)
    keys = credentials_result.value
    if server.can_serve_now(context, keys):
        # Drift of a running server is repaired even while a store does not answer.
        prerequisites, server_result = await _concurrently(
            _prerequisites(context, parsed, keys), server.reconcile(context, keys, PodPolicy.DESIRED)
        )
    else:
        prerequisites = await _prerequisites(context, parsed, keys)
        server_result = await server.reconcile(
            prerequisites.context, keys, _pod_policy(prerequisites), _unmet_dependency(prerequisites)
        )
    context = prerequisites.context
    rotation_result = await rotation.reconcile(
        context,
        _rotation_requested_at(parsed),
        credentials_result,
        prerequisites.are_ready,
        server_result.value,
    )
    credentials_result = replace(credentials_result, condition=rotation_result.condition)
    results: list[Result[Any]] = [
        credentials_result,
        prerequisites.database,
        prerequisites.artifacts,
        prerequisites.upgrade_plan,
        prerequisites.schema,
        server_result,
        rotation_result,
    ]
    backup_status = backup.build_status(context)
    if context.server.backup:
        results.append(await backup.reconcile(context, keys, context.server.backup, backup_status))
    else:
        await backup.remove(context)
    garbage_collection_result = await garbage_collection.reconcile(context, server_result.value)
    results += filter(None, [garbage_collection_result])

    new_conditions = [result.condition for result in results if result is not rotation_result]
    if keys:
        new_conditions = [
            replace(condition, message=keys.redact(condition.message)) for condition in new_conditions
        ]
    upgrade_status = preflight_step.upgrade_status(context, prerequisites.upgrade_plan.value, server_result)
    status_patch = _status_patch(context, keys, prerequisites, server_result.value)
    status_patch |= {"upgrade": upgrade_status, "backup": backup_status}
    if rotation_result.value:
        status_patch["credentialsRotatedAt"] = rotation_result.value
    status_patch |= garbage_collection.status_patch(garbage_collection_result)
    new_conditions.insert(0, conditions.ready_condition(new_conditions))
    if new_conditions[0].is_true:
        await prune.run(context, upgrading=in_progress(upgrade_status))
    await storage_moved.publish_event(context, status_patch, storage_change_allowed)
    await status_writer.write(
        resource,
        status_model.status(
            context.server, status_patch, new_conditions, status_writer.status_context(resource, deps)
        ),
        new_conditions,
        deps,
    )
    await garbage_collection.publish_event(context, garbage_collection_result)
    requeue_after = min(
        (result.requeue_after for result in results if result.requeue_after is not None), default=None
    )
    return ReconcileResult(new_conditions[0].status.value, requeue_after)


def _rotation_requested_at(parsed: api.MLflowServer) -> str | None:
    """`spec.rotateCredentialsAt` in the format of the status (RFC 3339, UTC)."""
    requested_at = parsed.spec.rotate_credentials_at
    return requested_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if requested_at else None


@dataclass(frozen=True)
class _Prerequisites:
    """Results of the components that the server pods depend on.

    `context` has the MLflow version to run. `upgrade_plan` has a value once the preflight allows the new image.
    `new_storage`: the results describe a database other than the one that the server currently uses.
    """

    context: ReconcileContext
    database: Result[DatabaseState]
    artifacts: Result[None]
    upgrade_plan: Result[UpgradePlan]
    schema: Result[str]
    new_storage: bool

    @property
    def are_ready(self) -> bool:
        """Whether both stores and the schema are ready."""
        return all(result.condition.is_true for result in (self.database, self.artifacts, self.schema))


async def _prerequisites(
    context: ReconcileContext, parsed: api.MLflowServer, keys: Credentials | None
) -> _Prerequisites:
    # Concurrently, so that neither store waits for the pod or the connection timeout of the other.
    database_result, artifacts_result = await _concurrently(
        database.reconcile(context, keys), artifacts.reconcile(context, keys)
    )
    context = _at_current_version(context, parsed, database_result.value)
    new_storage = keys is not None and keys.pending_secret is not None
    artifacts_ready = artifacts_result.condition.is_true
    restore_result = await restore.reconcile(context, database_result.value, artifacts_ready, new_storage)
    if not restore_result.value:
        return _Prerequisites(
            context,
            database_result,
            artifacts_result,
            Result[UpgradePlan](waiting(ConditionType.UPGRADE, "the restore")),
            Result(restore_result.condition, requeue_after=restore_result.requeue_after),
            new_storage,
        )
    upgrade_plan = await preflight_step.reconcile(
        context, database_result.value, artifacts_ready, new_storage
    )
    context = preflight_step.with_image_version(context, upgrade_plan.value)
    schema_result = await migration.reconcile(context, database_result.value, upgrade_plan.value, new_storage)
    return _Prerequisites(
        context, database_result, artifacts_result, upgrade_plan, schema_result, new_storage
    )


def _unmet_dependency(prerequisites: _Prerequisites) -> str | None:
    """The dependency that must be ready before the pods change; None if all are ready.

    A store that the pods already use may be unavailable for a while.
    """
    if not prerequisites.schema.condition.is_true:
        return "the schema"
    return (
        None
        if prerequisites.artifacts.condition.is_true
        or not server.artifact_location_changes(prerequisites.context)
        else "the new artifact store"
    )


def _pod_policy(prerequisites: _Prerequisites) -> PodPolicy:
    """Which pod template the Deployment must use.

    After a failed migration, the previous pods are started again if the schema revision has not changed.
    """
    if _unmet_dependency(prerequisites) is None:
        return PodPolicy.DESIRED
    running = preflight_step.running_version(prerequisites.context)
    if prerequisites.new_storage or running.image in {None, prerequisites.context.server.image}:
        return PodPolicy.UNCHANGED
    migration_failed = prerequisites.schema.condition.reason is Reason.MIGRATION_FAILED
    upgrade_plan = prerequisites.upgrade_plan.value
    if upgrade_plan and upgrade_plan.stop_servers and not migration_failed:
        return PodPolicy.STOPPED
    database_state = prerequisites.database.value
    if database_state and database_state.revision == running.revision:
        return PodPolicy.PREVIOUS
    return PodPolicy.UNCHANGED


def _at_current_version(
    context: ReconcileContext, parsed: api.MLflowServer, database_state: DatabaseState | None
) -> ReconcileContext:
    """Use the version of the existing schema for a server that was recreated on the data of a deleted one.

    The status of the deleted server is lost, and the operator's default version may be newer: using the default would
    migrate the database without a request.
    """
    explicit_version = parsed.spec.version or parsed.spec.image or parsed.status.version
    if explicit_version or not database_state or not database_state.revision:
        return context
    version = version_for_revision(database_state.revision)
    if version is None:
        return context
    image = context.deps.images.server(version)
    return replace(context, server=replace(context.server, version=version, image=image))


async def _concurrently(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    try:
        async with asyncio.TaskGroup() as group:
            first_task, second_task = group.create_task(first), group.create_task(second)
    except ExceptionGroup as errors:
        # The work queue recognizes expected errors by their type, which an ExceptionGroup would hide.
        raise errors.exceptions[0] from errors
    return first_task.result(), second_task.result()


def _status_patch(
    context: ReconcileContext,
    keys: Credentials | None,
    prerequisites: _Prerequisites,
    running_server: RunningServer | None,
) -> Object:
    database_state, revision = prerequisites.database.value, prerequisites.schema.value
    status_patch: Object = {}
    if database_state:
        restored_backup = restore_manifests.source_backup_id(database_state.table_comment)
        status_patch["restoredBackup"] = restored_backup or {}
    if revision:
        status_patch["schemaRevision"] = revision
    if running_server and running_server.version:
        status_patch |= {"version": running_server.version, "image": context.server.image}
        if keys:
            status_patch |= storage_location.status_fields(context.server, keys.connection)
    if running_server and running_server.deployment:
        deployment_status = running_server.deployment.get("status") or {}
        status_patch["replicas"] = int(deployment_status.get("replicas") or 0)
        status_patch["readyReplicas"] = int(deployment_status.get("readyReplicas") or 0)
    return status_patch


async def _reject(resource: Object, reason: Reason, cause: str, deps: Dependencies) -> ReconcileResult:
    message = f"{cause.rstrip('.')}. Reconciliation is paused until this is fixed."
    new_conditions = [false_condition(ConditionType.READY, reason, message)]
    status = status_model.invalid_status(new_conditions, status_writer.status_context(resource, deps))
    await status_writer.write(resource, status, new_conditions, deps)
    return ReconcileResult(ConditionStatus.FALSE.value)
