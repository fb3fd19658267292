"""A database on a shared Postgres: made when it is not there or not as planned, and otherwise only looked at.

What there is to compare, any login may see. So the administrator, whose Secret may go or change hands, is needed only
when something is to be done.
"""

from collections.abc import Awaitable, Callable

from mlflow_operator.clients.postgres import admin as postgres_admin
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.model import provisioning, storage_location
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ProvisionedDatabase, Server
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError

FIELD = "spec.database.provision"

_HOME = "postgres"
"""The database in which administrators begin; every Postgres comes with it."""

_SYSTEM = "kube-system"
"""The namespace whose uid stands for the cluster: it is never made anew."""


async def look(
    context: ReconcileContext,
    database: ProvisionedDatabase,
    connection: Connection,
    ca_path: str | None,
    inspect: Callable[[], Awaitable[DatabaseState]],
) -> tuple[DatabaseState, str]:
    """What the database holds, after it was made if need be; and what could not be changed, as a sentence, or nothing.

    `connection` goes where the server's pods would, `inspect` looks there. Raises UserMistake or NotReady.
    """
    try:
        state = await inspect()
    except ReconcileError as fault:
        if fault.reason is not Reason.DATABASE_AUTHENTICATION_FAILED:
            raise
        await _provision(context, database, connection, ca_path)
        return await inspect(), ""
    if fits(plan(context.server, database, None), state):
        return state, ""
    try:
        await _provision(context, database, connection, ca_path)
    except ReconcileError as fault:
        # the server runs as well as before
        return state, f" It is not as planned: {fault.message}"
    return state, ""


def plan(server: Server, database: ProvisionedDatabase, cluster: str | None) -> DatabasePlan:
    """What shall be there. `cluster` None: unknown, which fits any."""
    limit = provisioning.connection_limit(
        server.replicas, server.workers, job_execution=server.job_execution, env=server.env
    )
    return DatabasePlan(database.database, database.role, limit, provisioning.marker(server.owner, cluster))


def fits(wanted: DatabasePlan, state: DatabaseState) -> bool:
    """Whether the database needs nothing done."""
    return (
        state.owner == wanted.role
        and state.connection_limit == wanted.connection_limit
        and provisioning.is_ours(state.comment, wanted.marker)
    )


async def administrator(
    context: ReconcileContext, database: ProvisionedDatabase, connection: Connection
) -> Connection:
    """Who may make databases where `connection` leads, as the Secret says now."""
    return Connection(
        connection.host,
        connection.port,
        _HOME,
        await context.reader.value(database.username),
        await context.reader.value(database.password),
        connection.options,
    )


async def cluster_uid(context: ReconcileContext) -> str | None:
    """What tells this cluster from others; None where the operator may not ask."""
    try:
        found = await context.deps.cluster.get(kinds.NAMESPACE, None, _SYSTEM)
    except Forbidden:
        return None
    return str(found["metadata"]["uid"]) if found else None


async def _provision(
    context: ReconcileContext, database: ProvisionedDatabase, connection: Connection, ca_path: str | None
) -> None:
    admin = await administrator(context, database, connection)
    wanted = plan(context.server, database, await cluster_uid(context))
    login = Login(connection.username, connection.password)
    held_data = _held_data(context, connection)
    try:
        await postgres_admin.provision(admin, ca_path, wanted, login, FIELD, anew=not held_data)
    except ReconcileError as fault:
        raise _with_hints(context, fault, admin) from None


def _held_data(context: ReconcileContext, connection: Connection) -> bool:
    """Whether the server has run with this database, so that one that is gone is a loss. Whoever wants to start empty
    deletes its generated Secret."""
    before = context.observed.status
    known = before.get("database") or {}
    ran = before.get("schemaRevision") and known.get("type") == storage_location.PROVISION
    secret = context.observed.get(kinds.SECRET, context.server.names.database_secret)
    return bool(ran and secret and storage_location.same_database(known, connection))


def _with_hints(context: ReconcileContext, fault: ReconcileError, admin: Connection) -> ReconcileError:
    hint = ""
    if fault.reason is Reason.DATABASE_LOST:
        hint = f' Or, to start empty, delete Secret "{context.server.names.database_secret}".'
    if fault.reason is Reason.DATABASE_AUTHENTICATION_FAILED and admin.password != admin.password.rstrip():
        hint = " The password there ends in a space or a line break: printf writes it without, echo does not."
    return type(fault)(fault.reason, f"{fault.message}{hint}") if hint else fault
