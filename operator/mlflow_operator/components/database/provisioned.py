"""Compare the database on a shared Postgres with its plan, and create or update the database, its role and its login.

The administrator's Secret, which may be deleted or changed later, is read only if something must be written.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.framework import retained_store
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.login_hint import with_login_hint
from mlflow_operator.framework.platform_errors import of_platform
from mlflow_operator.kube import kinds
from mlflow_operator.model import availability, platform, provisioning, storage_location
from mlflow_operator.model import deployment as deployments
from mlflow_operator.model.platform import Part
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ProvisionedDatabase, Server
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError


async def inspect_or_provision(
    context: ReconcileContext,
    database: ProvisionedDatabase,
    connection: Connection,
    ca_path: str | None,
    inspect: Callable[[], Awaitable[DatabaseState]],
) -> tuple[DatabaseState, str]:
    """Inspect the database; create or update it if necessary.

    `connection` leads to the host that the server's pods resolve; `inspect` uses it. Returns the state and a note for
    the condition message: a sentence with a leading space if the update failed, else an empty string. Raises
    ConfigurationError or TransientError.
    """
    try:
        state = await inspect()
    except ReconcileError as error:
        if error.reason is not Reason.DATABASE_AUTHENTICATION_FAILED:
            raise
        await _provision(context, database, connection, ca_path)
        return await inspect(), ""
    desired = plan(context.server, database, None)
    if matches_plan(desired, state) or _waits_for_rollout(context, desired, state):
        return state, ""
    try:
        await _provision(context, database, connection, ca_path)
    except ReconcileError as error:
        if error.reason is Reason.ADOPTION_REQUIRED:
            # A login that works proves nothing: it may be that of the server in the deleted namespace.
            raise
        # The server can still use the database as it is.
        return state, f" It differs from the spec: {error.message}"
    return state, ""


def plan(server: Server, database: ProvisionedDatabase, cluster_id: str | None) -> DatabasePlan:
    """Return the desired database. `cluster_id` None: unknown; the marker then matches any cluster."""
    connection_limit = provisioning.connection_limit(
        server.replicas, server.workers, job_execution=server.job_execution, env=server.env
    )
    if database.max_connections:
        connection_limit = min(connection_limit, database.max_connections)
    origin = database.origin
    marker = provisioning.marker(server.owner, cluster_id, origin.namespace_uid if origin else None)
    return DatabasePlan(
        database.database,
        database.role,
        connection_limit,
        marker,
        origin.name if origin else "",
        adopts=origin is not None and origin.adopts,
    )


def matches_plan(desired: DatabasePlan, state: DatabaseState) -> bool:
    """Whether the database needs no change."""
    return (
        state.owner == desired.role
        and state.connection_limit == state.login_connection_limit == desired.connection_limit
        and provisioning.is_marker_of(state.comment, desired.marker)
    )


def _waits_for_rollout(context: ReconcileContext, desired: DatabasePlan, state: DatabaseState) -> bool:
    """Whether the database only needs a lower connection limit, and pods run that may need the present one.

    They keep the connections of their pools. With the lower limit, new pods would get none, and the rollout would never
    end.
    """
    present = state.connection_limit
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return (
        present > desired.connection_limit
        and matches_plan(replace(desired, connection_limit=present), state)
        and deployment is not None
        and (
            not availability.is_rolled_out(deployment)
            or deployments.connection_demand(deployment) > desired.connection_limit
        )
    )


async def admin_connection(
    context: ReconcileContext, database: ProvisionedDatabase, connection: Connection
) -> Connection:
    """Return a connection to the host of `connection` with the administrator's current credentials.

    The credentials of a platform are only sent to the platform's host, with the options that protect them.
    """
    admin = Connection(
        database.host if database.origin else connection.host,
        database.port if database.origin else connection.port,
        provisioning.MAINTENANCE_DATABASE,
        await context.reader.value(database.username),
        await context.reader.value(database.password),
        connection.options,
    )
    return platform.admin_connection(admin, database.tls) if database.origin else admin


async def cluster_uid(context: ReconcileContext) -> str | None:
    """Return the uid that identifies this cluster, None if the operator is not allowed to read it."""
    return await context.deps.cluster_identity.uid(context.deps.cluster)


async def _provision(
    context: ReconcileContext, database: ProvisionedDatabase, connection: Connection, ca_path: str | None
) -> None:
    with of_platform(database.origin, Part.DATABASE):
        admin = await admin_connection(context, database, connection)
    desired = plan(context.server, database, await cluster_uid(context))
    login = Login(connection.username, connection.password)
    expects_data = _expects_data(context, connection)
    await context.check_namespace(database.origin)
    try:
        with of_platform(database.origin, Part.DATABASE):
            await context.deps.postgres_admin.provision(
                admin, ca_path, desired, login, database.field, create=not expects_data
            )
    except ReconcileError as error:
        raise await _with_hints(context, error, admin) from None


def _expects_data(context: ReconcileContext, connection: Connection) -> bool:
    """Whether the server has run with this database, so that its absence means data loss.

    To start with an empty database, a user deletes the generated Secret.
    """
    status = context.observed.status
    recorded = status.get("database") or {}
    has_run = status.get("schemaRevision") and recorded.get("type") in storage_location.PROVISIONED_TYPES
    secret = context.observed.get(kinds.SECRET, context.server.names.database_secret)
    return bool(has_run and secret and storage_location.is_recorded_database(recorded, connection))


async def _with_hints(context: ReconcileContext, error: ReconcileError, admin: Connection) -> ReconcileError:
    names = context.server.names
    # With a volume of an embedded database, the Secret may contain the only copy of the password for its data.
    if error.reason is Reason.DATABASE_LOST and not await retained_store.exists(
        context, kinds.PVC, names.postgres_data
    ):
        hint = f' To start with an empty database, delete Secret "{names.database_secret}".'
        return type(error)(error.reason, f"{error.message}{hint}")
    return with_login_hint(error, admin)
