"""The database: runs where it is ours, is reached, and can hold what MLflow writes."""

from dataclasses import replace
from functools import partial

from mlflow_operator.clients import ca_files, dns
from mlflow_operator.clients.postgres.client import DatabaseState, create_database, inspect
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.migration import reconcile as schema
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.step import (
    RETRY_TRANSIENT_SECONDS,
    ReconcileContext,
    Result,
    step,
    suspended,
    waiting,
)
from mlflow_operator.kube import kinds, labels
from mlflow_operator.model import postgres, postgres_major
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


@step(_TYPE)
async def run(context: ReconcileContext, credentials: Credentials | None) -> Result[DatabaseState]:
    """Brings the embedded database up, then asks whichever database it is what it holds."""
    if credentials is None and embedded_store.wanted(
        context
    ):  # nothing is started before its password is safely stored
        return Result(waiting(_TYPE, "the credentials"))
    database, up, note, other = context.server.database, True, "", None
    embedded = isinstance(database, EmbeddedDatabase)
    if isinstance(database, EmbeddedDatabase):
        owner, secret = context.server.owner, context.server.names.database_secret
        database, other = _of_its_major(context, database)
        claim = postgres.data(owner, database)
        objects = postgres.objects(
            owner, database, context.server.pods, running=embedded_store.wanted(context)
        )
        up, note = await embedded_store.ensure_store(context, "database", claim, secret, objects)
    if context.server.suspended or credentials is None:
        return Result(suspended(_TYPE))
    if not up:
        return await embedded_store.not_ready_reason(
            context, _TYPE, labels.DATABASE_POD, context.server.names.postgres_data
        )
    field = _FIELDS[type(database)]
    ca_path = await ca_files.path_of(credentials.database_ca)
    connection = await as_pods_see_it(context, credentials.connection)
    look = partial(inspect, connection, ca_path, field, schema.fitting(context))
    try:
        if isinstance(database, ProvisionedDatabase):
            state, note = await provisioned.look(context, database, connection, ca_path, look)
        else:
            state = await look()
    except ReconcileError as fault:
        if not embedded:
            raise _hinting(fault, credentials.connection.password) from None
        if fault.reason is Reason.DATABASE_AUTHENTICATION_FAILED:
            # cut off in its first start after the user was made and before the database
            await create_database(credentials.connection, field)
            return Result(embedded_store.starting(_TYPE), requeue_after=RETRY_TRANSIENT_SECONDS)
        return embedded_store.service_settling(_TYPE, fault, context.was_ready)
    well = true_condition(_TYPE, f"The database answers and is UTF8.{note}")
    return Result(false_condition(_TYPE, other.reason, other.message) if other else well, state)


def _of_its_major(
    context: ReconcileContext, database: EmbeddedDatabase
) -> tuple[EmbeddedDatabase, ConfigurationError | None]:
    """The database with the image that can open its volume, and why that is not the one asked for."""
    live = context.observed.get(kinds.STATEFULSET, context.server.names.postgres)
    if live is None:
        return database, None
    running = str(live["spec"]["template"]["spec"]["containers"][0]["image"])
    other = postgres_major.refusal(running, database.image)
    return (replace(database, image=running) if other else database), other


_FIELDS: dict[type[Database], str] = {
    EmbeddedDatabase: "spec.database.embedded",
    ExternalDatabase: "spec.database.external",
    ProvisionedDatabase: provisioned.FIELD,
    ClusterDatabase: "spec.database.cloudNativePG",
}


def _hinting(fault: ReconcileError, password: str) -> ReconcileError:
    """A password may end as it likes; but where it is refused, this is the likeliest why."""
    if fault.reason is not Reason.DATABASE_AUTHENTICATION_FAILED or password == password.rstrip():
        return fault
    hint = "The password there ends in a space or a line break: printf writes it without, echo does not."
    return type(fault)(fault.reason, f"{fault.message} {hint}")


async def as_pods_see_it(context: ReconcileContext, connection: Connection) -> Connection:
    """With the address that a short host name stands for beside the server's pods."""
    if isinstance(context.server.database, EmbeddedDatabase):
        return connection
    found = await dns.resolve_in_namespace(
        connection.host, context.server.owner.namespace, context.deps.cluster_domain
    )
    return connection.with_hostaddr(found[1]) if found else connection
