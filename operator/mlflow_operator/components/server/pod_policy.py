"""Decide which pods the Deployment must run while stores, schema and image change. Writes nothing."""

from enum import Enum

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.credentials import encryption
from mlflow_operator.components.upgrade.preflight_decision import UpgradePlan
from mlflow_operator.components.upgrade.reconcile import running_version
from mlflow_operator.framework.component import ReconcileContext, Result
from mlflow_operator.framework.running_server import running_image
from mlflow_operator.kube import kinds
from mlflow_operator.model import authentication, storage_location
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.status.conditions import Reason


class PodPolicy(Enum):
    """Which pods the Deployment must run."""

    DESIRED = "pods of the desired version: the schema is compatible with it"
    PREVIOUS = "pods of the previous version: the schema is compatible with it"
    UNCHANGED = "the existing pods: it is not known with which version the schema is compatible"
    STOPPED = "no pods: the schema is being migrated"


def unmet_dependency(
    context: ReconcileContext,
    artifacts: Result[None],
    schema: Result[str],
    accounts: Result[Accounts] | None,
) -> str | None:
    """Return the dependency that must be ready before the pods change; None if all are ready.

    A store that the pods already use may be unavailable for a while. `accounts` is the result of authentication.
    """
    if not schema.condition.is_true:
        return "the schema"
    if encryption.is_missing(context):
        return "the encryption keys (condition EncryptionReady)"
    if accounts and accounts.value is None and _requires_accounts(context):
        return "the accounts (condition AuthenticationReady)"
    if artifacts.condition.is_true or not artifact_location_changes(context):
        return None
    return "the new artifact store"


def choose(
    context: ReconcileContext,
    database: DatabaseState | None,
    plan: UpgradePlan | None,
    schema: Result[str],
    *,
    switching_database: bool,
) -> PodPolicy:
    """Return which pods the Deployment must run while a dependency is not ready.

    After a failed migration, the previous pods are started again if the schema revision has not changed.
    """
    running = running_version(context)
    if switching_database or running.image in {None, context.server.image}:
        return PodPolicy.UNCHANGED
    migration_failed = schema.condition.reason is Reason.MIGRATION_FAILED
    if plan and plan.stop_servers and not migration_failed:
        return PodPolicy.STOPPED
    if database and database.revision == running.revision:
        return PodPolicy.PREVIOUS
    return PodPolicy.UNCHANGED


def enables_authentication(context: ReconcileContext) -> bool:
    """Whether the pods do not require the authentication yet that the spec asks for."""
    observed = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return context.server.auth is not None and not authentication.is_enforced_by(observed)


def _requires_accounts(context: ReconcileContext) -> bool:
    """Whether the pods must not start before the accounts are ready.

    Running pods continue: without authentication as long as it is withheld, and with it if the accounts are damaged.
    """
    if context.server.auth is None or context.server.auth.is_withheld:
        return False
    return enables_authentication(context) or running_image(context) != context.server.image


def artifact_location_changes(context: ReconcileContext) -> bool:
    """Whether the pods still use another artifact location. They switch once the new location has been checked."""
    observed = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return not storage_location.same_artifact_location(observed, context.server.artifacts)
