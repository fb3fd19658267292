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
from mlflow_operator.components.rotation.targets import Credential
from mlflow_operator.framework.previous_deployment import Serving
from mlflow_operator.framework.step import Outcome, Work, step
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.model import rollout
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, ready
from mlflow_operator.status.errors import Fault

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
    work: Work, wanted: str | None, credentials: Outcome[Credentials], usable: bool, served: Serving | None
) -> Outcome[str]:
    """Goes one stage on. The value is the `rotateCredentialsAt` that is carried out, None where none was.

    `wanted` is the spec's (RFC 3339, UTC). `credentials` is what that step said, which stands where there is nothing to
    add. `usable`: database, store and schema are fine, and the server is not suspended.
    """
    if credentials.value is None:
        return Outcome(credentials.condition)
    all_of_them = replaceable.of(work, credentials.value)
    now = work.out.now()
    stages = [each.stage(wanted, now) for each in all_of_them]
    done = min((each.values.get(rotation.ROTATED_AT, "") for each in all_of_them), default="") or None
    if wanted is None and not any(stage in {Stage.LET_IN, Stage.SHUT_OUT} for stage in stages):
        return Outcome(credentials.condition, done)
    if all(stage is Stage.REST for stage in stages):
        return Outcome(_with_hint(work, credentials.condition), done)
    found = [*zip(all_of_them, stages, strict=True)]
    try:
        if Stage.SHUT_OUT in stages:
            return await _shut_out(work, found, served if usable else None, done)
        return await _switch(work, found, wanted, done) if usable else Outcome(_waiting(), done)
    except Fault as fault:
        said = f"{fault.message} Credentials are being replaced, and that waits for it; those in use go on."
        raise type(fault)(fault.reason, said) from fault


async def _switch(
    work: Work, found: list[tuple[Credential, Stage]], wanted: str | None, done: str | None
) -> Outcome[str]:
    """Lets the next ones in, all of them before any is used: so the pods roll once."""
    turning = []
    for each, stage in found:
        if stage is Stage.REST:
            continue
        if stage is Stage.BEGIN:
            who, word = each.following(each.values)
            values = rotation.begun(each.values, each.pair, who, word, wanted or "")
            each = await _written(work, each, values)  # noqa: PLW2901 - the same, as it is now
        turning.append(each)
    for each in turning:
        await each.let_in(each.values)
    for each in turning:
        await _written(work, each, rotation.switched(each.values, each.pair))
        logger.info("a new credential is in use (Secret %s)", each.secret["metadata"]["name"])
    return Outcome(_rolling(), done, again=_SOON)


async def _shut_out(
    work: Work, found: list[tuple[Credential, Stage]], served: Serving | None, done: str | None
) -> Outcome[str]:
    if served is None or served.version is None or not served.deployment:
        return Outcome(_rolling(), done)
    pods = [
        pod
        for component in (labels.SERVER_POD, labels.MIGRATION_POD)
        for pod in work.seen.of(kinds.POD, component)
        if pod_diagnosis.alive(pod)
    ]
    if not rollout.complete(served.deployment, pods):
        return Outcome(_rolling(), done)
    for each, stage in found:
        if stage is Stage.SHUT_OUT:
            await each.shut_out(each.values)
            await _written(work, each, rotation.ended(each.values, each.pair))
            logger.info("the credential before is shut out (Secret %s)", each.secret["metadata"]["name"])
    said = "New credentials are in use by every pod, and the old ones are shut out."
    await work.out.events.publish(work.seen.resource, True, "CredentialsRotated", said)
    return Outcome(_rolling(), done, again=_SOON)


async def _written(work: Work, each: Credential, values: Values) -> Credential:
    """The Secret with these values and no others; Conflict if it is not what was looked at."""
    meta = each.secret["metadata"]
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    patch = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        {"op": "replace", "path": "/data", "value": data},
    ]
    live = await work.out.cluster.json_patch(kinds.SECRET, meta["namespace"], meta["name"], patch)
    return replace(each, secret=live)


def _rolling() -> Condition:
    return Condition(_TYPE, State.TRUE, Reason.ROTATION_IN_PROGRESS, _UNDER_WAY)


def _waiting() -> Condition:
    said = (
        "New credentials are asked for by spec.rotateCredentialsAt. They are made once the server is Ready."
    )
    return Condition(_TYPE, State.TRUE, Reason.ROTATION_IN_PROGRESS, said)


def _with_hint(work: Work, said: Condition) -> Condition:
    return ready(_TYPE, f"{said.message} {_THEIRS}") if said.true and replaceable.others(work) else said
