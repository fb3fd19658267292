"""Credentials: generated once where the server has stores of its own, read from the owner's Secrets otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from mlflow_operator.controller.steps.step import Outcome, Work, step
from mlflow_operator.core import credentials as secrets
from mlflow_operator.core import database_uri, kinds, mlflow, places, pods
from mlflow_operator.core.conditions import ConditionType, Reason, ready
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import EmbeddedDatabase, ExternalDatabase, SecretKey

_SHORTEST_SECRET = 5
"""Characters; to blot out less would tear holes into every sentence, and hide nothing."""

STORAGE_CHANGE = (
    "The database would change from {old} to {new}, and everything logged so far would stay behind. "
    "Point {field} back, or set spec.storageChangePolicy to Allow if that is what you want."
)


@dataclass(frozen=True)
class Credentials:
    """What opens the database and the artifact store. `connection` is as the operator uses it.

    `rollout_key` makes the values in annotations unguessable. Store keys are None with workload identity.
    """

    connection: Connection
    database_ca: str | None
    access_key: str | None
    secret_key: str | None
    store_ca: str | None
    rollout_key: bytes

    def hidden_in(self, message: str) -> str:
        """`message` with every password and key blotted out: a crashing container may print what it was given."""
        values = (self.connection.password, self.secret_key or "", self.rollout_key.decode())
        for value in (spelling for each in values for spelling in (each, quote(each, safe=""))):
            if len(value) >= _SHORTEST_SECRET:
                message = message.replace(value, "•••")
        return message

    def __repr__(self) -> str:
        """Without any value: this may land in a log."""
        return f"Credentials({self.connection})"


@step(ConditionType.CREDENTIALS)
async def run(work: Work, allow_storage_change: bool) -> Outcome[Credentials]:
    """Sees to it that every credential exists, and that the pods' own Secret says what they say."""
    database = work.server.database
    if isinstance(database, EmbeddedDatabase):
        connection = await _embedded_database(work, database)
    else:
        connection = await _external_database(work, database)
    _same_database(work, connection, allow_storage_change)
    access_key, secret_key = await _store_keys(work)
    database_ca = await work.read.optional(database.ca) if isinstance(database, ExternalDatabase) else None
    store_ca = await work.read.optional(work.server.artifacts.store.ca)
    rollout_key = await _pods_secret(work, connection)
    return Outcome(
        ready(ConditionType.CREDENTIALS, "Every credential is there."),
        Credentials(connection, database_ca, access_key, secret_key, store_ca, rollout_key.encode()),
    )


async def _embedded_database(work: Work, database: EmbeddedDatabase) -> Connection:
    names = work.server.names
    values = await _generated(
        work,
        names.database_secret,
        names.postgres_data,
        ("password",),
        lambda: secrets.database_secret(work.server.owner, database, work.out.password()),
    )
    return Connection(database.host, database.port, database.database, database.username, values["password"])


async def _external_database(work: Work, database: ExternalDatabase) -> Connection:
    if database.uri:
        where = f'Key "{database.uri.key}" of Secret "{database.uri.name}" ({database.uri.field})'
        connection = database_uri.parse(await work.read.value(database.uri), where)
    else:
        username = await work.read.optional(database.username) or ""
        password = await work.read.optional(database.password) or ""
        connection = Connection(database.host, database.port, database.database, username, password)
    return connection.with_tls(database.tls, None)


def _same_database(work: Work, connection: Connection, allowed: bool) -> None:
    """A Secret's content is no field of the resource, so the CRD's own rule can't see it change."""
    before = work.seen.status.get("database") or {}
    old = places.spelled(before)
    new = places.spelled({"host": connection.host, "port": connection.port, "name": connection.database})
    if before.get("host") and not places.same_database(before, connection) and not allowed:
        external = work.server.database
        field = (
            external.uri.field if isinstance(external, ExternalDatabase) and external.uri else "spec.database"
        )
        raise UserMistake(Reason.STORAGE_CHANGE_REFUSED, STORAGE_CHANGE.format(old=old, new=new, field=field))


async def _store_keys(work: Work) -> tuple[str | None, str | None]:
    artifacts, names = work.server.artifacts, work.server.names
    if artifacts.embedded:
        values = await _generated(
            work,
            names.artifacts_secret,
            names.artifact_store_data,
            ("accessKeyID", "secretAccessKey"),
            lambda: secrets.artifacts_secret(
                work.server.owner, artifacts.store, work.out.password()[:20], work.out.password()
            ),
        )
        return values["accessKeyID"], values["secretAccessKey"]
    return await _store_key(work, artifacts.store.access_key), await _store_key(
        work, artifacts.store.secret_key
    )


async def _store_key(work: Work, wanted: SecretKey | None) -> str | None:
    """A key of somebody else's store. The server's pods take it as it stands in the Secret, so here nothing is cut
    off that would be sent from there."""
    value = await work.read.optional(wanted)
    if wanted and value is not None and (value != value.strip() or not value):
        what = "begins or ends with a space or a line break" if value else "is empty"
        raise UserMistake(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{wanted.key}" of Secret "{wanted.name}" ({wanted.field}) {what}, and no store takes such a key. '
            "Write it again without: printf leaves out the line break that echo puts at the end.",
        )
    return value


async def _generated(
    work: Work, name: str, volume: str, keys: tuple[str, ...], make: Callable[[], Object]
) -> dict[str, str]:
    """A Secret that is generated once. One that is lost while its volume lives is never made up anew: the store
    would go on with the old password, and nobody would get in."""
    live = work.seen.get(kinds.SECRET, name)
    if live is None and work.seen.get(kinds.PVC, volume):
        raise UserMistake(
            Reason.SECRET_NOT_FOUND,
            f'Secret "{name}" is gone, but volume "{volume}" holds data that only its password opens. Restore the '
            f"Secret, with its labels, from a backup; or, to start empty, delete PersistentVolumeClaim "
            f'"{volume}", too.',
        )
    values = secrets.decoded(await work.ensure(live or make(), data=True))
    for key in keys:
        if not values.get(key):
            raise UserMistake(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore it from a backup: the store still goes by the '
                "old value, so a new one would lock everybody out.",
            )
    return values


async def _pods_secret(work: Work, connection: Connection) -> str:
    name, namespace = work.server.names.server_secret, work.server.owner.namespace
    # by name, too: with its labels taken off it would be given another key, and all pods would roll for nothing
    live = work.seen.get(kinds.SECRET, name) or await work.out.cluster.get(kinds.SECRET, namespace, name)
    known = secrets.decoded(live).get(secrets.ROLLOUT_KEY) if live else None
    rollout_key = known or work.out.password()
    database = work.server.database
    if isinstance(database, ExternalDatabase) and database.ca:
        connection = connection.with_tls(database.tls, pods.trust_path(mlflow.DATABASE_TRUST))
    await work.ensure(secrets.server_secret(work.server.owner, connection, rollout_key))
    return rollout_key
