"""The database: runs where it is ours, is reached, and can hold what MLflow writes."""

from dataclasses import replace
from functools import partial

from mlflow_operator.clients import ca_files, dns
from mlflow_operator.clients.postgres.client import DatabaseState, create_database, inspect
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.migration import reconcile as schema
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.step import SOON, Outcome, Work, step, suspended, waits
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
from mlflow_operator.status.conditions import ConditionType, Reason, not_ready, ready
from mlflow_operator.status.errors import Fault, UserMistake

_TYPE = ConditionType.DATABASE


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None) -> Outcome[DatabaseState]:
    """Brings the embedded database up, then asks whichever database it is what it holds."""
    if credentials is None and embedded_store.wanted(
        work
    ):  # nothing is started before its password is safely stored
        return Outcome(waits(_TYPE, "the credentials"))
    database, up, note, other = work.server.database, True, "", None
    embedded = isinstance(database, EmbeddedDatabase)
    if isinstance(database, EmbeddedDatabase):
        owner, secret = work.server.owner, work.server.names.database_secret
        database, other = _of_its_major(work, database)
        claim = postgres.data(owner, database)
        objects = postgres.objects(owner, database, work.server.pods, running=embedded_store.wanted(work))
        up, note = await embedded_store.bring_up(work, "database", claim, secret, objects)
    if work.server.suspended or credentials is None:
        return Outcome(suspended(_TYPE))
    if not up:
        return await embedded_store.why_not(work, _TYPE, labels.DATABASE_POD, work.server.names.postgres_data)
    field = _FIELDS[type(database)]
    ca_path = await ca_files.path_of(credentials.database_ca)
    connection = await as_pods_see_it(work, credentials.connection)
    look = partial(inspect, connection, ca_path, field, schema.fitting(work))
    try:
        if isinstance(database, ProvisionedDatabase):
            state, note = await provisioned.look(work, database, connection, ca_path, look)
        else:
            state = await look()
    except Fault as fault:
        if not embedded:
            raise _hinting(fault, credentials.connection.password) from None
        if fault.reason is Reason.DATABASE_AUTHENTICATION_FAILED:
            # cut off in its first start after the user was made and before the database
            await create_database(credentials.connection, field)
            return Outcome(embedded_store.starting(_TYPE), again=SOON)
        return embedded_store.just_up(_TYPE, fault, work.settled)
    well = ready(_TYPE, f"The database answers and is UTF8.{note}")
    return Outcome(not_ready(_TYPE, other.reason, other.message) if other else well, state)


def _of_its_major(work: Work, database: EmbeddedDatabase) -> tuple[EmbeddedDatabase, UserMistake | None]:
    """The database with the image that can open its volume, and why that is not the one asked for."""
    live = work.seen.get(kinds.STATEFULSET, work.server.names.postgres)
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


def _hinting(fault: Fault, password: str) -> Fault:
    """A password may end as it likes; but where it is refused, this is the likeliest why."""
    if fault.reason is not Reason.DATABASE_AUTHENTICATION_FAILED or password == password.rstrip():
        return fault
    hint = "The password there ends in a space or a line break: printf writes it without, echo does not."
    return type(fault)(fault.reason, f"{fault.message} {hint}")


async def as_pods_see_it(work: Work, connection: Connection) -> Connection:
    """With the address that a short host name stands for beside the server's pods."""
    if isinstance(work.server.database, EmbeddedDatabase):
        return connection
    found = await dns.completed(connection.host, work.server.owner.namespace, work.out.cluster_domain)
    return connection.found_at(found[1]) if found else connection
