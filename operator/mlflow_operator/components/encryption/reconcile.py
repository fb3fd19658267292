"""Encrypt the gateway and webhook secrets in the database with the current keys of the server.

Servers of earlier operator versions use MLflow's public default passphrase. The Job replaces it, and later passphrases,
with MLflow's own rotation, while the server runs. Afterwards the passphrase becomes the current one and the pods
restart. A server without gateway secrets needs no Job.

Owns: condition EncryptionReady; the Jobs `<name>-rewrap-<hash>`; the keys of the Secret `<name>-encryption` that change
with a rotation, and the Secret of a new server; `status.encryption`.
Needs: credentials (the keys); database (the encrypted secrets); the condition of migration.
Provides: the keys that the pods get (the value of the result) for server.
"""

from dataclasses import replace
from functools import partial

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.credentials.encryption import create_keys, current_keys
from mlflow_operator.components.encryption import manifests, messages, state
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    component,
    suspended,
    waiting,
)
from mlflow_operator.framework.jobs import (
    blocking_reason,
    delete_unneeded,
    failure_condition,
    has_condition,
    other_in_progress,
    pods_of,
    repeat,
)
from mlflow_operator.kube import json_patch, kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import encryption, secrets
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.server import EncryptionKeys
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    true_condition,
)
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.ENCRYPTION
_REQUEUE_NOW_SECONDS = 0.0


@component(_TYPE)
async def reconcile(
    context: ReconcileContext,
    database: DatabaseState | None,
    *,
    schema_ready: bool,
    switching_database: bool = False,
) -> Result[EncryptionKeys]:
    """Advance the encryption with the current keys by one step.

    `switching_database`: the server does not use `database` yet.
    """
    if context.server.suspended or database is None:
        return Result(suspended(_TYPE) if context.server.suspended else waiting(_TYPE, "the database"))
    if switching_database:
        return Result(waiting(_TYPE, "the switch to the new database"))
    if database.encrypted is None:
        return Result(
            waiting(_TYPE, "the tables, which a migration locks"), requeue_after=RETRY_TRANSIENT_SECONDS
        )
    await create_keys(context, database.encrypted)
    keys = await _keys(context, database.encrypted)
    restore = context.server.restore
    accepts_loss = restore is not None and restore.ignores_missing_keys
    if keys.unknown and not accepts_loss:
        # The Secret may have been lost, and be restored later. Until then, no other passphrase becomes current.
        raise ConfigurationError(
            Reason.SECRETS_UNREADABLE, messages.unknown_passphrases(context.server, keys.unknown)
        )
    if keys.needs_job:
        return await _run_job(context, database, keys, schema_ready=schema_ready)
    # The secrets of a Job that is left were encrypted or deleted otherwise.
    await delete_unneeded(context, _jobs(context))
    if keys.is_next:
        await _make_current(context)
        return Result(
            _in_progress(messages.SWITCHING), current_keys(context), requeue_after=_REQUEUE_NOW_SECONDS
        )
    return Result(_finished(context, keys), current_keys(context))


def status(keys: EncryptionKeys | None, context: ReconcileContext) -> Object:
    """New values of the fields of the status. The keys are unknown while a dependency is missing."""
    if keys is None:
        return {}
    text = _generated(context).get(encryption.VERSION) if keys.is_generated else None
    version = encryption.parse_version(text or "")
    if not keys.manages_passphrase:
        return {"encryption": {}}
    return {
        "encryption": {
            "secretName": keys.secret,
            **({"passphraseVersion": version} if version else {}),
        }
    }


async def _keys(context: ReconcileContext, stored: EncryptedSecrets) -> state.Keys:
    """Compare the keys with the stored secrets. Adds the next passphrase if a rotation is due."""
    desired, referenced = context.server.encryption, None
    if desired.is_generated:
        await _begin_rotation(context)
    else:
        referenced = await context.reader.values(kinds.SECRET, desired.secret)
    return state.analyze(desired, _generated(context), referenced or {}, stored)


def _generated(context: ReconcileContext) -> dict[str, str]:
    secret = context.reader.latest(kinds.SECRET, context.server.names.encryption_secret)
    return secrets.text_values(secret) if secret else {}


async def _begin_rotation(context: ReconcileContext) -> None:
    secret = context.reader.latest(kinds.SECRET, context.server.names.encryption_secret)
    if secret is None or not context.server.encryption.manages_passphrase:
        return
    values, created_at = secrets.text_values(secret), secret["metadata"].get("creationTimestamp")
    requested_at = context.server.encryption.rotation_requested_at
    if state.rotation_is_due(values, created_at, requested_at, context.deps.now()):
        await _write(
            context,
            secret,
            values | encryption.next_passphrase(context.deps.generate_password(), requested_at),
        )


async def _make_current(context: ReconcileContext) -> None:
    """Make the next passphrase the current one. The pods restart with it."""
    secret = context.reader.latest(kinds.SECRET, context.server.names.encryption_secret)
    if secret is None:
        return
    await _write(context, secret, encryption.with_current_passphrase(secrets.text_values(secret)))


async def _write(context: ReconcileContext, secret: Object, values: dict[str, str]) -> None:
    """Set the values of the Secret, and remove those that it no longer has.

    Values that are not text are kept. Raises Conflict if the Secret has changed since it was read.
    """
    removed = secrets.text_values(secret).keys() - values.keys()
    kept = {key: value for key, value in (secret.get("data") or {}).items() if key not in removed}
    data = kept | {key: secrets.encode(text) for key, text in values.items()}
    await context.patch(secret, [json_patch.unchanged(secret), json_patch.replace("/data", data)])


async def _run_job(
    context: ReconcileContext, database: DatabaseState, keys: state.Keys, *, schema_ready: bool
) -> Result[EncryptionKeys]:
    if not schema_ready:
        return Result(waiting(_TYPE, "the schema"), current_keys(context))
    desired = _desired_job(context, database, keys)
    observed = context.observed.get(kinds.JOB, desired["metadata"]["name"])
    other = await other_in_progress(context, _jobs(context), observed)
    if other:
        return Result(waiting(_TYPE, f'the Job "{other}"'), current_keys(context))
    if observed is None:
        if database.obstacle:
            raise database.obstacle
        await context.ensure_job(desired)
        return Result(_in_progress(), current_keys(context), requeue_after=RETRY_TRANSIENT_SECONDS)
    await context.adopt_job(desired, observed)
    if has_condition(observed, "Complete"):
        # A pod with an earlier passphrase has stored another secret since then.
        await context.deps.cluster.delete(observed)
        return Result(_in_progress(), current_keys(context), requeue_after=RETRY_TRANSIENT_SECONDS)
    if has_condition(observed, "Failed"):
        return await _handle_failure(context, observed, desired)
    pods = pods_of(context, observed)
    blocked = await blocking_reason(context, _TYPE, observed, pods, "the encryption of stored secrets")
    condition = blocked.condition if blocked else _in_progress()
    return Result(condition, current_keys(context), requeue_after=blocked.requeue_after if blocked else None)


def _desired_job(context: ReconcileContext, database: DatabaseState, keys: state.Keys) -> Object:
    stored = ",".join([*map(str, keys.stale), *keys.recoverable])
    return manifests.job(context.server, keys.passphrase, keys.version or 0, f"{database.identity}@{stored}")


async def _handle_failure(
    context: ReconcileContext, failed: Object, desired: Object
) -> Result[EncryptionKeys]:
    """Retry with a backoff: the Job is one transaction, so a failed one has changed nothing."""
    describe = partial(messages.job_failed, context.server, failed)
    condition = failure_condition(context, failed, _TYPE, Reason.REENCRYPTION_FAILED, describe)
    return replace(await repeat(context, failed, desired, condition), value=current_keys(context))


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.list(kinds.JOB, labels.REWRAP_POD)


def _finished(context: ReconcileContext, keys: state.Keys) -> Condition:
    """The condition if everything that can be encrypted with the current keys is."""
    if keys.unknown:
        message = messages.unknown_passphrases(context.server, keys.unknown)
        return false_condition(_TYPE, Reason.SECRETS_UNREADABLE, message)
    if keys.unreadable:
        message = messages.unreadable_webhooks(context.server, keys.unreadable)
        return false_condition(_TYPE, Reason.SECRETS_UNREADABLE, message)
    managed = context.server.encryption.manages_passphrase
    return true_condition(_TYPE, messages.UP_TO_DATE if managed else messages.USER_MANAGED)


def _in_progress(message: str = messages.IN_PROGRESS) -> Condition:
    return Condition(_TYPE, ConditionStatus.FALSE, Reason.PROGRESSING, message)
