"""Replace the credentials that the operator generated, while the server's pods have access at every moment.

Rotation runs after the server: the next reconcile uses what it writes, like any change of a Secret. Credentials in
Secrets that the spec references are not replaced; the user changes them.

Owns: condition CredentialsReady (that of credentials, unless a rotation is due); the rotated values and the keys
`next*`, `previous*` and `rotatedAt` of the Secrets `<name>-database` and `<name>-artifacts`; the rotated logins and
access keys in the stores; Event CredentialsRotated; `status.credentialsRotatedAt`.
Needs: credentials; the conditions of database, artifacts and migration; server (`RunningServer`); `resolve_for_pods`
and `provisioned` of database; `bucket`, `clients` and `embedded` of artifacts.
Provides: nothing to other components.
"""

import base64
import logging
from dataclasses import replace

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.rotation import state, targets
from mlflow_operator.components.rotation.state import Stage, Values
from mlflow_operator.components.rotation.targets import RotatedCredential
from mlflow_operator.framework.component import ReconcileContext, Result, component
from mlflow_operator.framework.running_server import RunningServer
from mlflow_operator.kube import json_patch, kinds, labels, pod_diagnosis
from mlflow_operator.model import rollout
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, true_condition
from mlflow_operator.status.errors import ReconcileError

logger = logging.getLogger(__name__)

_TYPE = ConditionType.CREDENTIALS
_REQUEUE_NOW_SECONDS = 0.0

_IN_PROGRESS_MESSAGE = (
    "Rotating credentials: the server's pods are being rolled to the new credentials. The old credentials are revoked "
    "afterwards."
)
_NOT_MANAGED_MESSAGE = (
    "The operator does not rotate credentials in Secrets that the spec references. Change them at their source, then "
    "in the Secret."
)


@component(_TYPE)
async def reconcile(
    context: ReconcileContext,
    credentials: Result[Credentials],
    dependencies_ready: bool,
    server: RunningServer | None,
) -> Result[str]:
    """Advance the rotation by one stage.

    `credentials` is the result of that component; its condition is kept if no rotation is in progress.
    `dependencies_ready`: database, artifact store and schema are ready, and the server is not suspended. The value of
    the result is the `rotateCredentialsAt` that is completed, None if there is none.
    """
    if credentials.value is None:
        return Result(credentials.condition)
    requested_at = context.server.rotation_requested_at
    rotated = targets.rotated_credentials(context, credentials.value)
    now = context.deps.now()
    stages = [credential.stage(requested_at, now) for credential in rotated]
    rotated_at = (
        min((credential.values.get(state.ROTATED_AT, "") for credential in rotated), default="") or None
    )
    if requested_at is None and not any(stage in {Stage.GRANT, Stage.REVOKE} for stage in stages):
        return Result(credentials.condition, rotated_at)
    if all(stage is Stage.IDLE for stage in stages):
        return Result(_with_hint(context, credentials.condition), rotated_at)
    with_stages = [*zip(rotated, stages, strict=True)]
    try:
        if Stage.REVOKE in stages:
            return await _revoke_previous(
                context, with_stages, server if dependencies_ready else None, rotated_at
            )
        return (
            await _grant_and_switch(context, with_stages, requested_at, rotated_at)
            if dependencies_ready
            else Result(_waiting(), rotated_at)
        )
    except ReconcileError as error:
        message = (
            f"{error.message} Credential rotation is waiting for this; the current credentials stay in use."
        )
        raise type(error)(error.reason, message) from error


async def _grant_and_switch(
    context: ReconcileContext,
    with_stages: list[tuple[RotatedCredential, Stage]],
    requested_at: str | None,
    rotated_at: str | None,
) -> Result[str]:
    """Grant access to all new credentials before any of them is used, so that the pods are rolled only once."""
    pending = []
    for credential, stage in with_stages:
        if stage is Stage.IDLE:
            continue
        if stage is Stage.BEGIN:
            username, password = credential.generate_next(credential.values)
            values = state.add_next(
                credential.values, credential.keys, username, password, requested_at or ""
            )
            credential = await _write_secret(context, credential, values)  # noqa: PLW2901 - the same credential after the write
        pending.append(credential)
    for credential in pending:
        await credential.grant(credential.values)
    for credential in pending:
        await _write_secret(context, credential, state.switch_to_next(credential.values, credential.keys))
        logger.info("switched to the new credential (Secret %s)", credential.secret["metadata"]["name"])
    return Result(_in_progress(), rotated_at, requeue_after=_REQUEUE_NOW_SECONDS)


async def _revoke_previous(
    context: ReconcileContext,
    with_stages: list[tuple[RotatedCredential, Stage]],
    server: RunningServer | None,
    rotated_at: str | None,
) -> Result[str]:
    if server is None or server.version is None or not server.deployment:
        return Result(_in_progress(), rotated_at)
    pods = [
        pod
        for component in (labels.SERVER_POD, labels.MIGRATION_POD)
        for pod in context.observed.list(kinds.POD, component)
        if pod_diagnosis.is_active(pod)
    ]
    if not rollout.is_complete(server.deployment, pods):
        return Result(_in_progress(), rotated_at)
    for credential, stage in with_stages:
        if stage is Stage.REVOKE:
            await credential.revoke(credential.values)
            await _write_secret(
                context, credential, state.remove_previous(credential.values, credential.keys)
            )
            logger.info("revoked the previous credential (Secret %s)", credential.secret["metadata"]["name"])
    message = "All pods use the new credentials, and the old credentials are revoked."
    await context.deps.events.publish(context.observed.resource, True, "CredentialsRotated", message)
    return Result(_in_progress(), rotated_at, requeue_after=_REQUEUE_NOW_SECONDS)


async def _write_secret(
    context: ReconcileContext, credential: RotatedCredential, values: Values
) -> RotatedCredential:
    """Replace all values of the Secret. Raises Conflict if the Secret has changed since it was read."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    patch = [json_patch.unchanged(credential.secret), json_patch.replace("/data", data)]
    return replace(credential, secret=await context.patch(credential.secret, patch))


def _in_progress() -> Condition:
    return Condition(_TYPE, ConditionStatus.TRUE, Reason.ROTATION_IN_PROGRESS, _IN_PROGRESS_MESSAGE)


def _waiting() -> Condition:
    message = "spec.rotateCredentialsAt requests new credentials. The operator creates them once the server is Ready."
    return Condition(_TYPE, ConditionStatus.TRUE, Reason.ROTATION_IN_PROGRESS, message)


def _with_hint(context: ReconcileContext, condition: Condition) -> Condition:
    return (
        true_condition(_TYPE, f"{condition.message} {_NOT_MANAGED_MESSAGE}")
        if condition.is_true and targets.has_user_managed(context)
        else condition
    )
