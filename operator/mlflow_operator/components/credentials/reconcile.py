"""Credentials: generated once where the server has stores of its own, read from the owner's Secrets otherwise."""

from dataclasses import dataclass
from urllib.parse import quote

from mlflow_operator.components.credentials import database as login
from mlflow_operator.components.credentials.s3 import StoreKeys, store_keys
from mlflow_operator.framework.step import ReconcileContext, Result, step
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env, pod_template, secrets, storage_location
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase
from mlflow_operator.status.conditions import ConditionType, true_condition

_SHORTEST_SECRET = 5
"""Characters; to blot out less would tear holes into every sentence, and hide nothing."""


@dataclass(frozen=True)
class Credentials:
    """What opens the database and the artifact store. `connection` is as the operator uses it.

    `rollout_key` makes the values in annotations unguessable. `store` is without a key with workload identity.
    `arrived` is there while the pods are on another database: their Secret as it shall be once they may move.
    """

    connection: Connection
    database_ca: str | None
    store: StoreKeys
    store_ca: str | None
    rollout_key: bytes
    pending_secret: Object | None = None

    def redact(self, message: str) -> str:
        """`message` with every password and key blotted out: a crashing container may print what it was given."""
        keys = [key.secret for key in (self.store.service_key, self.store.root_key) if key]
        values = (self.connection.password, *keys, self.rollout_key.decode())
        for value in (spelling for each in values for spelling in (each, quote(each, safe=""))):
            if len(value) >= _SHORTEST_SECRET:
                message = message.replace(value, "•••")
        return message

    def __repr__(self) -> str:
        """Without any value: this may land in a log."""
        return f"Credentials({self.connection})"


@step(ConditionType.CREDENTIALS)
async def run(context: ReconcileContext, allow_storage_change: bool) -> Result[Credentials]:
    """Sees to it that every credential exists, and that the pods' own Secret says what they say."""
    connection = await login.connection(context, allow_storage_change)
    keys = await store_keys(context)
    database_ca = await context.reader.optional(context.server.database_ca)
    store = context.server.artifacts.s3
    store_ca = await context.reader.optional(store.ca) if store else None
    root = keys.root_key
    users = secrets.store_users(context.server.artifacts, root.id, root.secret) if root else {}
    rollout_key, arrived = await _pods_secret(context, connection, users)
    return Result(
        true_condition(ConditionType.CREDENTIALS, "Every credential is there."),
        Credentials(connection, database_ca, keys, store_ca, rollout_key.encode(), arrived),
    )


async def switch_database(context: ReconcileContext, credentials: Credentials) -> None:
    """The pods are given the database that the server is to move to; its schema must be ready."""
    if credentials.pending_secret:
        await context.ensure(credentials.pending_secret)


async def _pods_secret(
    context: ReconcileContext, connection: Connection, users: dict[str, str]
) -> tuple[str, Object | None]:
    """The rollout key; and, where the server is on another database yet, what its Secret says once it has moved."""
    name, namespace = context.server.names.server_secret, context.server.owner.namespace
    # by name, too: with its labels taken off it would be given another key, and all pods would roll for nothing
    live = context.observed.get(kinds.SECRET, name) or await context.deps.cluster.get(
        kinds.SECRET, namespace, name
    )
    known = secrets.decoded(live) if live else {}
    rollout_key = known.get(secrets.ROLLOUT_KEY) or context.deps.generate_password()
    moving = storage_location.has_moved(context.observed.status, connection)
    database = context.server.database
    if not isinstance(database, EmbeddedDatabase) and database.ca:
        connection = connection.with_tls(database.tls, pod_template.trust_path(mlflow_env.DATABASE_TRUST))
    uri, owner = secrets.server_uri(connection), context.server.owner
    arrived = secrets.server_secret(owner, uri, rollout_key, **users)
    serving = known.get(mlflow_env.BACKEND_STORE_KEY)
    if not moving or serving in {None, uri}:
        await context.ensure(arrived)
        return rollout_key, None
    both = {**users, mlflow_env.NEXT_STORE_KEY: uri}
    await context.ensure(secrets.server_secret(owner, serving or uri, rollout_key, **both))
    return rollout_key, arrived
