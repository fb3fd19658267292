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
from mlflow_operator.components.deletion.reconcile import depart, hold
from mlflow_operator.components.garbage_collection import reconcile as garbage
from mlflow_operator.components.migration import preflight_step
from mlflow_operator.components.migration import reconcile as schema
from mlflow_operator.components.migration.plan import Plan, under_way
from mlflow_operator.components.restore import manifests as restores
from mlflow_operator.components.restore import reconcile as restore
from mlflow_operator.components.rotation import reconcile as rotation
from mlflow_operator.components.server import reconcile as serve
from mlflow_operator.components.server import storage_moved
from mlflow_operator.components.server.reconcile import Pods
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.dependencies import Outside
from mlflow_operator.framework.observe import Reader, observe
from mlflow_operator.framework.previous_deployment import Serving
from mlflow_operator.framework.step import Outcome, Work, waits
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden, Invalid
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.model import status as statuses
from mlflow_operator.model import storage_location
from mlflow_operator.model.resolve import resolve, surroundings
from mlflow_operator.model.versions import left_at
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import ConditionType, Reason, State, not_ready

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Verdict:
    """How a server is. `again`: seconds until another look is due; None: an event, or the resync, will do.

    `ready` is the status of its Ready condition, None where there is no such server (any more).
    """

    ready: str | None
    again: float | None = None


async def reconcile(key: NamespacedName, out: Outside) -> Verdict:
    """Brings one server to what its spec asks for.

    Raises what the API server or our own bugs bring about; the queue tries again.
    """
    namespace, name = key
    resource = await out.cluster.get(kinds.MLFLOWSERVER, namespace, name)
    if resource is None:
        return Verdict(None)  # owned objects go by their ownerReferences, data stays
    if resource["metadata"].get("deletionTimestamp"):
        again = await depart(resource, out)
        return Verdict(None) if again is None else Verdict(State.FALSE.value, again)
    try:
        parsed = api.parse(resource)
    except api.InvalidResource as error:
        return await _refuse(resource, Reason.INVALID_RESOURCE, str(error), out)
    try:
        resource = await hold(resource, parsed.spec.deletion_policy is api.DeletionPolicy.DELETE, out)
    except (Forbidden, Invalid) as error:
        return await _refuse(resource, Reason.OPERATION_REFUSED, str(error), out)
    seen = await observe(resource, out.cluster)
    around = surroundings(out.images, out.cluster_domain, seen.get(kinds.SERVICE, name))
    work = Work(seen, resolve(parsed, around), Reader(out.cluster, namespace), out)

    allowed = parsed.spec.storage_change_policy.value == "Allow"
    keys = await credentials.run(work, allowed)
    if serve.serves_already(work, keys.value):
        # what runs is kept as it should be, however long others take to answer
        below, served = await _together(
            _underneath(work, parsed, keys.value), serve.run(work, keys.value, Pods.AS_ASKED)
        )
    else:
        below = await _underneath(work, parsed, keys.value)
        served = await serve.run(below.work, keys.value, _pods(below), _lacks(below))
    work, base, files, tables = below.work, below.base, below.files, below.tables

    usable = base.condition.true and files.condition.true and tables.condition.true
    turned = await rotation.run(work, _wanted(parsed), keys, usable, served.value)
    keys = replace(keys, condition=turned.condition)
    outcomes: list[Outcome[object]] = [keys, base, files, below.leave, tables, served, turned]  # type: ignore[list-item]
    backups = backup.record(work)
    if work.server.backup:
        outcomes.append(await backup.run(work, keys.value, work.server.backup, backups))  # type: ignore[arg-type]
    else:
        await backup.remove(work)
    cleaned = await garbage.run(work, served.value)
    outcomes += filter(None, [cleaned])  # type: ignore[list-item]
    said = [outcome.condition for outcome in outcomes if outcome is not turned]
    if keys.value:
        said = [replace(each, message=keys.value.hidden_in(each.message)) for each in said]
    learned = _learned(work, keys.value, base.value, tables.value, served.value)
    learned["upgrade"] = record = preflight_step.record(work, below.leave.value, served)
    learned["backup"] = backups
    if turned.value:
        learned["credentialsRotatedAt"] = turned.value
    learned |= garbage.learned(cleaned)
    said.insert(0, conditions.overall(said))
    if said[0].true:
        await prune.run(work, upgrading=under_way(record))
    await storage_moved.tell(work, learned, allowed)
    await status_writer.write(
        resource, statuses.status(work.server, learned, said, status_writer.moment(resource, out)), said, out
    )
    await garbage.tell(work, cleaned)
    again = min((o.again for o in outcomes if o.again is not None), default=None)
    return Verdict(said[0].status.value, again)


def _wanted(parsed: api.MLflowServer) -> str | None:
    """When credentials are to be replaced, as it is noted."""
    at = parsed.spec.rotate_credentials_at
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


@dataclass(frozen=True)
class _Underneath:
    """What a server stands on. `work` is for the version at which it goes on.

    `leave` is the new image's to take over. `moving`: all of it is about another database than the one it is on.
    """

    work: Work
    base: Outcome[DatabaseState]
    files: Outcome[None]
    leave: Outcome[Plan]
    tables: Outcome[str]
    moving: bool


async def _underneath(work: Work, parsed: api.MLflowServer, keys: Credentials | None) -> _Underneath:
    # both stores at the same time: neither waits for the other's pod, or for its time-out
    base, files = await _together(database.run(work, keys), artifacts.run(work, keys))
    work = _at_its_version(work, parsed, base.value)
    moving = keys is not None and keys.arrived is not None
    put_back = await restore.run(work, base.value, files.condition.true, moving)
    if not put_back.value:
        leave = Outcome[Plan](waits(conditions.ConditionType.UPGRADE, "the restore"))
        return _Underneath(
            work, base, files, leave, Outcome(put_back.condition, again=put_back.again), moving
        )
    leave = await preflight_step.run(work, base.value, files.condition.true, moving)
    work = preflight_step.of_the_image(work, leave.value)
    tables = await schema.run(work, base.value, leave.value, moving)
    return _Underneath(work, base, files, leave, tables, moving)


def _lacks(below: _Underneath) -> str | None:
    """What must be ready before the pods are touched. A store that they are on already may be away for a while."""
    if not below.tables.condition.true:
        return "the schema"
    return (
        None
        if below.files.condition.true or not serve.other_files(below.work)
        else "the other artifact store"
    )


def _pods(below: _Underneath) -> Pods:
    """Which pods shall serve. Those of before come back where a migration failed, and the schema is as it was."""
    if _lacks(below) is None:
        return Pods.AS_ASKED
    last = preflight_step.before(below.work)
    if below.moving or last.image in {None, below.work.server.image}:
        return Pods.AS_THEY_ARE
    failed = below.tables.condition.reason is Reason.MIGRATION_FAILED
    if below.leave.value and below.leave.value.stops and not failed:
        return Pods.STOPPED
    found = below.base.value
    return Pods.OF_BEFORE if found and found.revision == last.revision else Pods.AS_THEY_ARE


def _at_its_version(work: Work, parsed: api.MLflowServer, found: DatabaseState | None) -> Work:
    """A server made again on the data of an earlier one goes on at that one's version.

    Its status went with it, and the version that the operator is tested with may be a newer one: taking that would
    migrate the database unasked.
    """
    named = parsed.spec.version or parsed.spec.image or parsed.status.version
    version = left_at(found.revision) if found and found.revision and not named else None
    if version is None:
        return work
    server = replace(work.server, version=version, image=work.out.images.server(version))
    return replace(work, server=server)


async def _together(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except ExceptionGroup as errors:
        # for the queue, which knows what is part of life
        raise errors.exceptions[0] from errors
    return first.result(), second.result()


def _learned(
    work: Work,
    keys: Credentials | None,
    found: DatabaseState | None,
    revision: str | None,
    serving: Serving | None,
) -> Object:
    learned: Object = {}
    if found:
        learned["restoredBackup"] = restores.source(found.comment_of_tables) or {}
    if revision:
        learned["schemaRevision"] = revision
    if serving and serving.version:
        learned |= {"version": serving.version, "image": work.server.image}
        if keys:
            learned |= storage_location.of(work.server, keys.connection)
    if serving and serving.deployment:
        state = serving.deployment.get("status") or {}
        learned["replicas"] = int(state.get("replicas") or 0)
        learned["readyReplicas"] = int(state.get("readyReplicas") or 0)
    return learned


async def _refuse(resource: Object, reason: Reason, why: str, out: Outside) -> Verdict:
    message = f"{why.rstrip('.')}. Nothing is changed until it is mended."
    said = [not_ready(ConditionType.READY, reason, message)]
    await status_writer.write(
        resource, statuses.refused(said, status_writer.moment(resource, out)), said, out
    )
    return Verdict(State.FALSE.value)
