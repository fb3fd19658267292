"""One reconcile: reads what is, decides what should be, applies the difference, says so in the status.

It never asks which event woke it, and it can be cut off after any of its writes: the next one goes on from
what it finds.
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
from mlflow_operator.components.garbage_collection import reconcile as garbage
from mlflow_operator.components.migration import preflight_step
from mlflow_operator.components.migration import reconcile as schema
from mlflow_operator.components.migration.plan import UpgradePlan, in_progress
from mlflow_operator.components.restore import manifests as restores
from mlflow_operator.components.restore import reconcile as restore
from mlflow_operator.components.rotation import reconcile as rotation
from mlflow_operator.components.server import reconcile as serve
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
from mlflow_operator.model import status as statuses
from mlflow_operator.model import storage_location
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.versions import version_for_revision
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import ConditionType, Reason, State, false_condition

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class ReconcileResult:
    """How a server is. `again`: seconds until another look is due; None: an event, or the resync, will do.

    `ready` is the status of its Ready condition, None where there is no such server (any more).
    """

    ready: str | None
    requeue_after: float | None = None


async def reconcile(key: NamespacedName, deps: Dependencies) -> ReconcileResult:
    """Brings one server to what its spec asks for.

    Raises what the API server or our own bugs bring about; the queue tries again.
    """
    namespace, name = key
    resource = await deps.cluster.get(kinds.MLFLOWSERVER, namespace, name)
    if resource is None:
        return ReconcileResult(None)  # owned objects go by their ownerReferences, data stays
    if resource["metadata"].get("deletionTimestamp"):
        again = await finalize(resource, deps)
        return ReconcileResult(None) if again is None else ReconcileResult(State.FALSE.value, again)
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
    seen = await observe(resource, deps.cluster)
    around = cluster_defaults(deps.images, deps.cluster_domain, seen.get(kinds.SERVICE, name))
    context = ReconcileContext(seen, resolve(parsed, around), Reader(deps.cluster, namespace), deps)

    allowed = parsed.spec.storage_change_policy.value == "Allow"
    keys = await credentials.run(context, allowed)
    if serve.can_serve_now(context, keys.value):
        # what runs is kept as it should be, however long others take to answer
        below, served = await concurrently(
            _prerequisites(context, parsed, keys.value), serve.run(context, keys.value, PodPolicy.DESIRED)
        )
    else:
        below = await _prerequisites(context, parsed, keys.value)
        served = await serve.run(below.context, keys.value, pod_policy(below), unmet_dependency(below))
    context, base, files, tables = below.context, below.database, below.artifacts, below.schema

    usable = base.condition.is_true and files.condition.is_true and tables.condition.is_true
    turned = await rotation.run(context, _is_desired(parsed), keys, usable, served.value)
    keys = replace(keys, condition=turned.condition)
    outcomes: list[Result[object]] = [keys, base, files, below.upgrade_plan, tables, served, turned]  # type: ignore[list-item]
    backups = backup.record(context)
    if context.server.backup:
        outcomes.append(await backup.run(context, keys.value, context.server.backup, backups))  # type: ignore[arg-type]
    else:
        await backup.remove(context)
    cleaned = await garbage.run(context, served.value)
    outcomes += filter(None, [cleaned])  # type: ignore[list-item]
    said = [outcome.condition for outcome in outcomes if outcome is not turned]
    if keys.value:
        said = [replace(each, message=keys.value.redact(each.message)) for each in said]
    learned = _status_patch(context, keys.value, base.value, tables.value, served.value)
    learned["upgrade"] = record = preflight_step.record(context, below.upgrade_plan.value, served)
    learned["backup"] = backups
    if turned.value:
        learned["credentialsRotatedAt"] = turned.value
    learned |= garbage.learned(cleaned)
    said.insert(0, conditions.ready_condition(said))
    if said[0].is_true:
        await prune.run(context, upgrading=in_progress(record))
    await storage_moved.tell(context, learned, allowed)
    await status_writer.write(
        resource,
        statuses.status(context.server, learned, said, status_writer.status_moment(resource, deps)),
        said,
        deps,
    )
    await garbage.publish_event(context, cleaned)
    again = min((o.requeue_after for o in outcomes if o.requeue_after is not None), default=None)
    return ReconcileResult(said[0].status.value, again)


def _is_desired(parsed: api.MLflowServer) -> str | None:
    """When credentials are to be replaced, as it is noted."""
    at = parsed.spec.rotate_credentials_at
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


@dataclass(frozen=True)
class _Prerequisites:
    """What a server stands on. `work` is for the version at which it goes on.

    `leave` is the new image's to take over. `moving`: all of it is about another database than the one it is on.
    """

    context: ReconcileContext
    database: Result[DatabaseState]
    artifacts: Result[None]
    upgrade_plan: Result[UpgradePlan]
    schema: Result[str]
    new_storage: bool


async def _prerequisites(
    context: ReconcileContext, parsed: api.MLflowServer, keys: Credentials | None
) -> _Prerequisites:
    # both stores at the same time: neither waits for the other's pod, or for its time-out
    base, files = await concurrently(database.run(context, keys), artifacts.run(context, keys))
    context = _at_current_version(context, parsed, base.value)
    moving = keys is not None and keys.pending_secret is not None
    put_back = await restore.run(context, base.value, files.condition.is_true, moving)
    if not put_back.value:
        leave = Result[UpgradePlan](waiting(conditions.ConditionType.UPGRADE, "the restore"))
        return _Prerequisites(
            context,
            base,
            files,
            leave,
            Result(put_back.condition, requeue_after=put_back.requeue_after),
            moving,
        )
    leave = await preflight_step.run(context, base.value, files.condition.is_true, moving)
    context = preflight_step.of_the_image(context, leave.value)
    tables = await schema.run(context, base.value, leave.value, moving)
    return _Prerequisites(context, base, files, leave, tables, moving)


def unmet_dependency(prerequisites: _Prerequisites) -> str | None:
    """What must be ready before the pods are touched. A store that they are on already may be away for a while."""
    if not prerequisites.schema.condition.is_true:
        return "the schema"
    return (
        None
        if prerequisites.artifacts.condition.is_true or not serve.other_files(prerequisites.context)
        else "the other artifact store"
    )


def pod_policy(prerequisites: _Prerequisites) -> PodPolicy:
    """Which pods shall serve. Those of before come back where a migration failed, and the schema is as it was."""
    if unmet_dependency(prerequisites) is None:
        return PodPolicy.DESIRED
    last = preflight_step.before(prerequisites.context)
    if prerequisites.new_storage or last.image in {None, prerequisites.context.server.image}:
        return PodPolicy.UNCHANGED
    failed = prerequisites.schema.condition.reason is Reason.MIGRATION_FAILED
    if prerequisites.upgrade_plan.value and prerequisites.upgrade_plan.value.stops and not failed:
        return PodPolicy.STOPPED
    found = prerequisites.database.value
    return PodPolicy.PREVIOUS if found and found.revision == last.revision else PodPolicy.UNCHANGED


def _at_current_version(
    context: ReconcileContext, parsed: api.MLflowServer, found: DatabaseState | None
) -> ReconcileContext:
    """A server made again on the data of an earlier one goes on at that one's version.

    Its status went with it, and the version that the operator is tested with may be a newer one: taking that would
    migrate the database unasked.
    """
    named = parsed.spec.version or parsed.spec.image or parsed.status.version
    version = version_for_revision(found.revision) if found and found.revision and not named else None
    if version is None:
        return context
    server = replace(context.server, version=version, image=context.deps.images.server(version))
    return replace(context, server=server)


async def concurrently(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except ExceptionGroup as errors:
        # for the queue, which knows what is part of life
        raise errors.exceptions[0] from errors
    return first.result(), second.result()


def _status_patch(
    context: ReconcileContext,
    keys: Credentials | None,
    found: DatabaseState | None,
    revision: str | None,
    serving: RunningServer | None,
) -> Object:
    learned: Object = {}
    if found:
        learned["restoredBackup"] = restores.source(found.comment_of_tables) or {}
    if revision:
        learned["schemaRevision"] = revision
    if serving and serving.version:
        learned |= {"version": serving.version, "image": context.server.image}
        if keys:
            learned |= storage_location.of(context.server, keys.connection)
    if serving and serving.deployment:
        state = serving.deployment.get("status") or {}
        learned["replicas"] = int(state.get("replicas") or 0)
        learned["readyReplicas"] = int(state.get("readyReplicas") or 0)
    return learned


async def _reject(resource: Object, reason: Reason, why: str, out: Dependencies) -> ReconcileResult:
    message = f"{why.rstrip('.')}. Nothing is changed until it is mended."
    said = [false_condition(ConditionType.READY, reason, message)]
    await status_writer.write(
        resource, statuses.refused(said, status_writer.status_moment(resource, out)), said, out
    )
    return ReconcileResult(State.FALSE.value)
