"""Prepare MLflow's accounts before the server's pods require authentication.

The password in the Secret of the administrator is the source of truth: if the database has another one, or none, a Job
sets it. The same Job migrates the tables of users and roles. For a new server, the migration Job does both. Pods that
already require authentication keep running, whatever happens to the accounts.

Owns: condition AuthenticationReady; the Jobs `<name>-auth-<hash>`; Events AuthenticationEnabled,
AuthenticationDisabled, AdministratorCreated and AdministratorPasswordReset; `status.auth`, `status.adminSecretRef`.
Needs: credentials (the administrator's password); database (the accounts); the condition of migration.
Provides: whether the accounts are ready, for server.
"""

from functools import partial

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.authentication import manifests, messages
from mlflow_operator.components.credentials.reconcile import Credentials
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
    has_started,
    other_in_progress,
    pods_of,
    repeat,
    retry,
)
from mlflow_operator.framework.running_server import RunningServer, running_image
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.server import BasicAuth
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    true_condition,
)
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.AUTHENTICATION

ENABLED, DISABLED = "AuthenticationEnabled", "AuthenticationDisabled"
CREATED, RESET = "AdministratorCreated", "AdministratorPasswordReset"
"""Reasons of Events. No condition has one of them, because the server works."""


async def reconcile(
    context: ReconcileContext,
    credentials: Credentials | None,
    database: DatabaseState | None,
    *,
    schema_ready: bool,
) -> Result[Accounts] | None:
    """Advance the accounts by one step; None without authentication. The result has a value if they are ready.

    `schema_ready`: whether all other tables are migrated. A Job would have to wait for their migration.
    """
    auth = context.server.auth
    if auth is None:
        for job in _jobs(context):
            if not has_started(context, job):
                await context.deps.cluster.delete(job)
        return None
    return await _reconcile(context, auth, credentials, database, schema_ready=schema_ready)


def status_patch(
    context: ReconcileContext, database: DatabaseState | None, running: RunningServer | None
) -> Object:
    """New values of the fields of the status. What is unknown keeps its last value."""
    deployment = running.deployment if running else None
    patch = authentication.status(context.server, deployment, database.accounts if database else None)
    if patch["auth"] and context.server.auth:
        patch["auth"] = (context.observed.status.get("auth") or {}) | patch["auth"]
    return patch


async def publish_event(context: ReconcileContext, running: RunningServer | None) -> None:
    """Publish one Event when a server with clients starts or stops to require credentials."""
    before = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    after = running.deployment if running else None
    if after is None:
        return
    # The status is written after the Event: it shows a change that an interrupted reconcile has made.
    recorded = (context.observed.status.get("auth") or {}).get("type")
    is_enforced, was_enforced = map(authentication.is_enforced_by, (after, before))
    was_open = recorded == "None" or (before is not None and not was_enforced)
    if is_enforced and was_open:
        await context.deps.events.publish(context.observed.resource, True, ENABLED, messages.ENABLED)
    if not is_enforced and (recorded == "Basic" or was_enforced):
        await context.deps.events.publish(context.observed.resource, False, DISABLED, messages.DISABLED)


@component(_TYPE)
async def _reconcile(
    context: ReconcileContext,
    auth: BasicAuth,
    credentials: Credentials | None,
    database: DatabaseState | None,
    *,
    schema_ready: bool,
) -> Result[Accounts]:
    if authentication.is_unsupported(context.server):
        raise ConfigurationError(Reason.AUTHENTICATION_UNSUPPORTED, messages.unsupported(context.server))
    if context.server.suspended:
        return Result(suspended(_TYPE))
    if credentials is None or credentials.admin_password is None or database is None:
        return Result(waiting(_TYPE, "the credentials" if credentials is None else "the database"))
    accounts = database.accounts
    if accounts is None:
        return Result(waiting(_TYPE, "the tables, which a migration locks"), None, RETRY_TRANSIENT_SECONDS)
    desired = manifests.job(
        context.server, database.identity, switching_database=credentials.switches_database
    )
    observed = context.observed.get(kinds.JOB, desired["metadata"]["name"])
    event = await _administrator_fault(context, accounts, credentials.admin_password)
    is_complete = observed is not None and has_condition(observed, "Complete")
    if event is None and (_has_known_tables(context, accounts) or (is_complete and accounts.revision)):
        return await _ready(context, auth, accounts, observed if is_complete else None)
    if not schema_ready:
        return Result(waiting(_TYPE, "the schema"))
    return await _run_job(context, auth, desired, observed, event)


def _has_known_tables(context: ReconcileContext, accounts: Accounts) -> bool:
    """Whether the tables are known to have the revision that the image needs, without a Job of this image."""
    head = authentication.known_head(context.server)
    if head or accounts.revision is None:
        return accounts.revision == head
    recorded = context.observed.status.get("auth") or {}
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return (
        authentication.is_enforced_by(deployment)
        and running_image(context) == context.server.image
        and recorded.get("schemaRevision") == accounts.revision
    )


async def _administrator_fault(context: ReconcileContext, accounts: Accounts, password: str) -> str | None:
    """The Event about what a Job must do to the administrator's account; None if it must do nothing."""
    if accounts.password_hash is None:
        return CREATED
    # None: a later version of MLflow stores another kind of hash, which only this version can check.
    matches = await context.deps.password_checks.matches(accounts.password_hash, password)
    return None if accounts.is_admin and matches is not False else RESET


async def _ready(
    context: ReconcileContext, auth: BasicAuth, accounts: Accounts, completed: Object | None
) -> Result[Accounts]:
    """Report the accounts as ready. The Job that prepared them is deleted after the Event about it is published."""
    if completed and _has_known_tables(context, accounts):
        action = (completed["metadata"].get("annotations") or {}).get(labels.ACCOUNT_ACTION)
        if action in _EVENTS:
            await context.deps.events.publish(context.observed.resource, True, action, _EVENTS[action](auth))
        await context.deps.cluster.delete(completed)
    await delete_unneeded(context, _jobs(context))
    return Result(true_condition(_TYPE, messages.ready(auth)), accounts)


_EVENTS = {CREATED: messages.administrator_created, RESET: messages.password_reset}


async def _run_job(
    context: ReconcileContext, auth: BasicAuth, desired: Object, observed: Object | None, event: str | None
) -> Result[Accounts]:
    if event:
        desired["metadata"]["annotations"][labels.ACCOUNT_ACTION] = event
    other = await other_in_progress(context, _jobs(context), observed)
    if other:
        return Result(waiting(_TYPE, f'the Job "{other}"'))
    if observed is None:
        await context.ensure_job(desired)
        return Result(_in_progress(auth), None, RETRY_TRANSIENT_SECONDS)
    await context.adopt_job(desired, observed)
    if has_condition(observed, "Complete"):
        # Someone has changed the account since then. With a backoff, in case the Job has no effect.
        backoff = await retry(context, observed, desired)
        return Result(_in_progress(auth), None, backoff or RETRY_TRANSIENT_SECONDS)
    if has_condition(observed, "Failed"):
        describe = partial(messages.job_failed, context.server, observed)
        condition = failure_condition(context, observed, _TYPE, Reason.ACCOUNTS_FAILED, describe)
        return await repeat(context, observed, desired, condition)
    pods = pods_of(context, observed)
    blocked = await blocking_reason(context, _TYPE, observed, pods, "the preparation of accounts")
    condition = blocked.condition if blocked else _in_progress(auth)
    return Result(condition, None, blocked.requeue_after if blocked else None)


def _jobs(context: ReconcileContext) -> list[Object]:
    return context.observed.list(kinds.JOB, labels.AUTHENTICATION_POD)


def _in_progress(auth: BasicAuth) -> Condition:
    return Condition(_TYPE, ConditionStatus.FALSE, Reason.PROGRESSING, messages.in_progress(auth))
