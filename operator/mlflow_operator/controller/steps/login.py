"""How the server gets into its database: a login that was generated, or one that the owner's Secrets hold."""

from mlflow_operator.controller.steps.generated import generated
from mlflow_operator.controller.steps.step import Work
from mlflow_operator.core import credentials as secrets
from mlflow_operator.core import database_uri, places
from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.server import EmbeddedDatabase, ExternalDatabase

STORAGE_CHANGE = (
    "The database would change from {old} to {new}, and everything logged so far would stay behind. "
    "Point {field} back, or set spec.storageChangePolicy to Allow if that is what you want."
)


async def connection(work: Work, allow_storage_change: bool) -> Connection:
    """What opens the server's database, as the operator uses it: without a file to verify with."""
    database = work.server.database
    if isinstance(database, EmbeddedDatabase):
        found = await _embedded(work, database)
    else:
        found = await _external(work, database)
    _same_database(work, found, allow_storage_change)
    return found


async def _embedded(work: Work, database: EmbeddedDatabase) -> Connection:
    names = work.server.names
    values = await generated(
        work,
        names.database_secret,
        names.postgres_data,
        ("username", "password"),
        lambda: secrets.database_secret(work.server.owner, database, work.out.password()),
    )
    return Connection(database.host, database.port, database.database, values["username"], values["password"])


async def _external(work: Work, database: ExternalDatabase) -> Connection:
    if database.uri:
        where = f'Key "{database.uri.key}" of Secret "{database.uri.name}" ({database.uri.field})'
        found = database_uri.parse(await work.read.value(database.uri), where)
    else:
        username = await work.read.optional(database.username) or ""
        password = await work.read.optional(database.password) or ""
        found = Connection(database.host, database.port, database.database, username, password)
    return found.with_tls(database.tls, None)


def _same_database(work: Work, found: Connection, allowed: bool) -> None:
    """A Secret's content is no field of the resource, so the CRD's own rule can't see it change."""
    before = work.seen.status.get("database") or {}
    old = places.spelled(before)
    new = places.spelled({"host": found.host, "port": found.port, "name": found.database})
    if before.get("host") and not places.same_database(before, found) and not allowed:
        external = work.server.database
        field = (
            external.uri.field if isinstance(external, ExternalDatabase) and external.uri else "spec.database"
        )
        raise UserMistake(Reason.STORAGE_CHANGE_REFUSED, STORAGE_CHANGE.format(old=old, new=new, field=field))
