"""New credentials for old ones, without a moment in which the server's pods don't get in.

Comes last in a reconcile: what it writes is taken up by the next one, as any change of a Secret is. Only what the
operator made is replaced; what stands in Secrets of the owner's is the owner's to change.
"""

import base64
import logging
from dataclasses import replace

from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.rotation import state as rotation
from mlflow_operator.components.rotation import targets as replaceable
from mlflow_operator.components.rotation.state import Stage, Values
from mlflow_operator.components.rotation.targets import RotatedCredential
from mlflow_operator.framework.previous_deployment import RunningServer
from mlflow_operator.framework.step import ReconcileContext, Result, step
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.model import rollout
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, true_condition
from mlflow_operator.status.errors import ReconcileError

logger = logging.getLogger(__name__)

_TYPE = ConditionType.CREDENTIALS
_SOON = 0.0

_UNDER_WAY = (
    "Credentials are being replaced: the server's pods are rolled to the new ones, and the old ones are shut out after "
    "that."
)
_THEIRS = (
    "Those in Secrets that the spec names are not the operator's to replace: change them where they come from, then in "
    "the Secret."
)


@step(_TYPE)
async def run(
    context: ReconcileContext,
    wanted: str | None,
    credentials: Result[Credentials],
    usable: bool,
    served: RunningServer | None,
) -> Result[str]:
    """Goes one stage on. The value is the `rotateCredentialsAt` that is carried out, None where none was.

    `wanted` is the spec's (RFC 3339, UTC). `credentials` is what that step said, which stands where there is nothing to
    add. `usable`: database, store and schema are fine, and the server is not suspended.
    """
    if credentials.value is None:
        return Result(credentials.condition)
    all_of_them = replaceable.of(context, credentials.value)
    now = context.deps.now()
    stages = [each.stage(wanted, now) for each in all_of_them]
    done = min((each.values.get(rotation.ROTATED_AT, "") for each in all_of_them), default="") or None
    if wanted is None and not any(stage in {Stage.GRANT, Stage.REVOKE} for stage in stages):
        return Result(credentials.condition, done)
    if all(stage is Stage.IDLE for stage in stages):
        return Result(_with_hint(context, credentials.condition), done)
    found = [*zip(all_of_them, stages, strict=True)]
    try:
        if Stage.REVOKE in stages:
            return await _shut_out(context, found, served if usable else None, done)
        return await _switch(context, found, wanted, done) if usable else Result(_waiting(), done)
    except ReconcileError as fault:
        said = f"{fault.message} Credentials are being replaced, and that waits for it; those in use go on."
        raise type(fault)(fault.reason, said) from fault


async def _switch(
    context: ReconcileContext,
    found: list[tuple[RotatedCredential, Stage]],
    wanted: str | None,
    done: str | None,
) -> Result[str]:
    """Lets the next ones in, all of them before any is used: so the pods roll once."""
    turning = []
    for each, stage in found:
        if stage is Stage.IDLE:
            continue
        if stage is Stage.BEGIN:
            who, word = each.following(each.values)
            values = rotation.begun(each.values, each.pair, who, word, wanted or "")
            each = await _written(context, each, values)  # noqa: PLW2901 - the same, as it is now
        turning.append(each)
    for each in turning:
        await each.grant(each.values)
    for each in turning:
        await _written(context, each, rotation.switched(each.values, each.pair))
        logger.info("a new credential is in use (Secret %s)", each.secret["metadata"]["name"])
    return Result(_rolling(), done, requeue_after=_SOON)


async def _shut_out(
    context: ReconcileContext,
    found: list[tuple[RotatedCredential, Stage]],
    served: RunningServer | None,
    done: str | None,
) -> Result[str]:
    if served is None or served.version is None or not served.deployment:
        return Result(_rolling(), done)
    pods = [
        pod
        for component in (labels.SERVER_POD, labels.MIGRATION_POD)
        for pod in context.observed.of(kinds.POD, component)
        if pod_diagnosis.is_active(pod)
    ]
    if not rollout.complete(served.deployment, pods):
        return Result(_rolling(), done)
    for each, stage in found:
        if stage is Stage.REVOKE:
            await each.revoke(each.values)
            await _written(context, each, rotation.ended(each.values, each.pair))
            logger.info("the credential before is shut out (Secret %s)", each.secret["metadata"]["name"])
    said = "New credentials are in use by every pod, and the old ones are shut out."
    await context.deps.events.publish(context.observed.resource, True, "CredentialsRotated", said)
    return Result(_rolling(), done, requeue_after=_SOON)


async def _written(context: ReconcileContext, each: RotatedCredential, values: Values) -> RotatedCredential:
    """The Secret with these values and no others; Conflict if it is not what was looked at."""
    meta = each.secret["metadata"]
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    patch = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        {"op": "replace", "path": "/data", "value": data},
    ]
    live = await context.deps.cluster.json_patch(kinds.SECRET, meta["namespace"], meta["name"], patch)
    return replace(each, secret=live)


def _rolling() -> Condition:
    return Condition(_TYPE, State.TRUE, Reason.ROTATION_IN_PROGRESS, _UNDER_WAY)


def _waiting() -> Condition:
    said = (
        "New credentials are asked for by spec.rotateCredentialsAt. They are made once the server is Ready."
    )
    return Condition(_TYPE, State.TRUE, Reason.ROTATION_IN_PROGRESS, said)


def _with_hint(context: ReconcileContext, said: Condition) -> Condition:
    return (
        true_condition(_TYPE, f"{said.message} {_THEIRS}")
        if said.is_true and replaceable.others(context)
        else said
    )
