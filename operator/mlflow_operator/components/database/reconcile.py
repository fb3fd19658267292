"""Run the embedded database or provision one on a shared Postgres, and inspect the database that the server uses.

Owns: condition DatabaseReady; StatefulSet and Service `<name>-postgres` and PersistentVolumeClaim
`<name>-postgres-data` of the embedded database; the database, its owner role and its logins on a shared Postgres.
Needs: credentials (connection, CA certificate).
Provides: `DatabaseState` (schema revision, table comment, obstacles to a migration) for restore, upgrade, migration,
server and the version to run; `resolve_for_pods` and `provisioned` for rotation and deletion.
"""

from dataclasses import replace
from functools import partial

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import provisioned
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.component import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    component,
    suspended,
    waiting,
)
from mlflow_operator.framework.login_hint import with_login_hint
from mlflow_operator.framework.platform_errors import of_platform, with_platform
from mlflow_operator.framework.schema_revision import expected_revision
from mlflow_operator.kube import kinds, labels
from mlflow_operator.model import postgres, postgres_major, provisioning
from mlflow_operator.model.platform import Part
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import (
    ClusterDatabase,
    Database,
    EmbeddedDatabase,
    ExternalDatabase,
    ProvisionedDatabase,
)
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition, true_condition
from mlflow_operator.status.errors import ConfigurationError, ReconcileError

_TYPE = ConditionType.DATABASE


@component(_TYPE)
async def reconcile(context: ReconcileContext, credentials: Credentials | None) -> Result[DatabaseState]:
    """Start the embedded database if the spec asks for one, then inspect the database."""
    # The database must not start before its password is stored in the Secret.
    if credentials is None and embedded_store.should_run(context):
        return Result(waiting(_TYPE, "the credentials"))
    database, is_up, note, refusal = context.server.database, True, "", None
    is_embedded = isinstance(database, EmbeddedDatabase)
    if isinstance(database, EmbeddedDatabase):
        owner, names = context.server.owner, context.server.names.embedded_database
        database, refusal = _with_running_major(context, database)
        claim = postgres.volume_claim(owner, database)
        objects = postgres.objects(
            owner, database, context.server.pods, running=embedded_store.should_run(context)
        )
        is_up, note = await embedded_store.ensure_store(context, "database", claim, names, objects)
    if context.server.suspended or credentials is None:
        return Result(suspended(_TYPE))
    if not is_up:
        return await embedded_store.not_ready_reason(
            context, _TYPE, labels.DATABASE_POD, context.server.names.postgres_data
        )
    field = database.field if isinstance(database, ProvisionedDatabase) else _FIELDS[type(database)]
    ca_path = await context.deps.ca_files.path_of(credentials.database_ca)
    connection = await resolve_for_pods(context, credentials.connection)
    auth = context.server.auth
    inspect_database = partial(
        context.deps.postgres.inspect,
        connection,
        ca_path,
        field,
        expected_revision(context),
        administrator=auth.administrator if auth else None,
    )
    try:
        if isinstance(database, ProvisionedDatabase):
            with of_platform(database.origin, Part.DATABASE):
                state, note = await provisioned.inspect_or_provision(
                    context, database, connection, ca_path, inspect_database
                )
            note = provisioning.limit_note(context.server, database) + note
            if state.obstacle and database.origin:
                obstacle = with_platform(state.obstacle, database.origin, Part.DATABASE)
                state = replace(state, obstacle=obstacle)
        else:
            state = await inspect_database()
    except ReconcileError as error:
        if not is_embedded:
            raise with_login_hint(error, credentials.connection) from None
        if error.reason is Reason.DATABASE_AUTHENTICATION_FAILED:
            # Its first start was interrupted after it created the user and before it created the database.
            await context.deps.postgres.create_database(credentials.connection, field)
            return Result(embedded_store.starting(_TYPE), requeue_after=RETRY_TRANSIENT_SECONDS)
        return embedded_store.service_settling(_TYPE, error, context.was_ready)
    ready = true_condition(_TYPE, f"The database is reachable and its encoding is UTF8.{note}")
    return Result(false_condition(_TYPE, refusal.reason, refusal.message) if refusal else ready, state)


def _with_running_major(
    context: ReconcileContext, database: EmbeddedDatabase
) -> tuple[EmbeddedDatabase, ConfigurationError | None]:
    """Return the database with an image that can read its volume, and the error if that is not the desired image."""
    stateful_set = context.observed.get(kinds.STATEFULSET, context.server.names.postgres)
    if stateful_set is None:
        return database, None
    running_image = str(stateful_set["spec"]["template"]["spec"]["containers"][0]["image"])
    refusal = postgres_major.major_version_error(running_image, database.image)
    return (replace(database, image=running_image) if refusal else database), refusal


_FIELDS: dict[type[Database], str] = {
    EmbeddedDatabase: "spec.database.embedded",
    ExternalDatabase: "spec.database.external",
    ClusterDatabase: "spec.database.cloudNativePG",
}


async def resolve_for_pods(context: ReconcileContext, connection: Connection) -> Connection:
    """Return `connection` with the address to which a short host name resolves in the server's namespace.

    Never the host of a platform: Services in the namespace must not decide where the operator connects to.
    """
    database = context.server.database
    if isinstance(database, EmbeddedDatabase) or (
        isinstance(database, ProvisionedDatabase) and database.origin
    ):
        return connection
    resolved = await context.deps.resolver.resolve(
        connection.host, context.server.owner.namespace, context.deps.cluster_domain
    )
    return connection.with_hostaddr(resolved[1]) if resolved else connection
