"""The database: runs where it is ours, is reached, and can hold what MLflow writes."""

from functools import partial

from mlflow_operator.controller.steps import provisioned, schema, stores
from mlflow_operator.controller.steps.credentials import Credentials
from mlflow_operator.controller.steps.step import SOON, Outcome, Work, step, suspended, waits
from mlflow_operator.core import labels, postgres
from mlflow_operator.core.conditions import ConditionType, Reason, ready
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import Fault
from mlflow_operator.core.server import (
    ClusterDatabase,
    Database,
    EmbeddedDatabase,
    ExternalDatabase,
    ProvisionedDatabase,
)
from mlflow_operator.providers import names, trust
from mlflow_operator.providers.postgres import DatabaseState, create_database, inspect

_TYPE = ConditionType.DATABASE


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None) -> Outcome[DatabaseState]:
    """Brings the embedded database up, then asks whichever database it is what it holds."""
    if credentials is None and stores.wanted(work):  # nothing is started before its password is safely stored
        return Outcome(waits(_TYPE, "the credentials"))
    database, up, note = work.server.database, True, ""
    embedded = isinstance(database, EmbeddedDatabase)
    if isinstance(database, EmbeddedDatabase):
        owner, secret = work.server.owner, work.server.names.database_secret
        claim = postgres.data(owner, database)
        objects = postgres.objects(owner, database, work.server.pods, running=stores.wanted(work))
        up, note = await stores.bring_up(work, "database", claim, secret, objects)
    if work.server.suspended or credentials is None:
        return Outcome(suspended(_TYPE))
    if not up:
        return await stores.why_not(work, _TYPE, labels.DATABASE_POD, work.server.names.postgres_data)
    field = _FIELDS[type(database)]
    ca_path = await trust.path_of(credentials.database_ca)
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
            return Outcome(stores.starting(_TYPE), again=SOON)
        return stores.just_up(_TYPE, fault, work.settled)
    return Outcome(ready(_TYPE, f"The database answers and is UTF8.{note}"), state)


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
    found = await names.completed(connection.host, work.server.owner.namespace, work.out.cluster_domain)
    return connection.found_at(found[1]) if found else connection
