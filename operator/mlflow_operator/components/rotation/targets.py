"""The credentials that the operator made and can replace: where each is kept, who lets in and who shuts out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlflow_operator.clients import ca_files
from mlflow_operator.clients.postgres import admin as postgres_admin
from mlflow_operator.clients.postgres import roles as postgres_logins
from mlflow_operator.clients.s3 import bucket_policy, minio_admin
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.components.artifacts import embedded as own_store
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.database.reconcile import as_pods_see_it
from mlflow_operator.components.rotation import state as rotation
from mlflow_operator.components.rotation.state import Pair, Stage, Values
from mlflow_operator.framework.step import Work
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import postgres_uri, provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login, Plan
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase


@dataclass(frozen=True)
class Credential:
    """One that can be replaced. `secret` holds it, `following` makes up who comes next and by which word.

    `let_in` and `shut_out` are given the Secret's values; both can be done twice.
    """

    secret: Object
    pair: Pair
    following: Callable[[Values], tuple[str, str]]
    let_in: Callable[[Values], Awaitable[None]]
    shut_out: Callable[[Values], Awaitable[None]]

    @property
    def values(self) -> dict[str, str]:
        """What the Secret says."""
        return secrets.decoded(self.secret)

    def stage(self, wanted: str | None, now: str) -> Stage:
        """What is to be done with it next; `wanted` is when it was asked to be replaced."""
        made = self.secret["metadata"].get("creationTimestamp")
        return rotation.stage(self.values, self.pair, rotation.due(self.values, made, wanted, now))


def of(work: Work, credentials: Credentials) -> list[Credential]:
    """Those of a server whose Secret is there."""
    database = work.server.database
    found = (
        _embedded_database(work, database, credentials) if isinstance(database, EmbeddedDatabase) else None,
        _provisioned_database(work, database, credentials)
        if isinstance(database, ProvisionedDatabase)
        else None,
        _shared_store(work, credentials),
        _embedded_store(work, credentials),
    )
    return [each for each in found if each]


def others(work: Work) -> bool:
    """Whether there are some that its owner has to replace."""
    store = work.server.artifacts.s3
    embedded = work.server.artifacts.embedded
    theirs = store is not None and store.access_key is not None and not embedded and not store.admin
    return theirs or not isinstance(work.server.database, EmbeddedDatabase | ProvisionedDatabase)


def _embedded_database(work: Work, database: EmbeddedDatabase, credentials: Credentials) -> Credential | None:
    secret = work.seen.get(kinds.SECRET, work.server.names.database_secret)
    if secret is None:
        return None
    connection, owner, field = credentials.connection, database.username, "spec.database.embedded"
    pair = Pair("username", "password", _with_uri)

    async def let_in(values: Values) -> None:
        login = Login(values[pair.next_who], values[pair.next_word])
        await postgres_logins.admit(connection, owner, login, field)

    async def shut_out(values: Values) -> None:
        await postgres_logins.revoke(connection, owner, values[pair.previous], field)

    return Credential(secret, pair, _taking_turns(work, owner), let_in, shut_out)


def _provisioned_database(
    work: Work, database: ProvisionedDatabase, credentials: Credentials
) -> Credential | None:
    secret = work.seen.get(kinds.SECRET, work.server.names.database_secret)
    if secret is None:
        return None
    pair, field = Pair("username", "password", _with_uri), provisioned.FIELD

    async def administration() -> tuple[Connection, str | None, Plan]:
        connection = await as_pods_see_it(work, credentials.connection)
        admin = await provisioned.administrator(work, database, connection)
        plan = provisioned.plan(work.server, database, await provisioned.cluster_uid(work))
        return admin, await ca_files.path_of(credentials.database_ca), plan

    async def let_in(values: Values) -> None:
        login = Login(values[pair.next_who], values[pair.next_word])
        await postgres_admin.admit(*await administration(), login, field)

    async def shut_out(values: Values) -> None:
        await postgres_admin.revoke(*await administration(), values[pair.previous], field)

    return Credential(secret, pair, _taking_turns(work, database.role), let_in, shut_out)


def _shared_store(work: Work, credentials: Credentials) -> Credential | None:
    """The key of a server's own user of a shared store."""
    store, owner = work.server.artifacts.s3, work.server.owner
    secret = work.seen.get(kinds.SECRET, work.server.names.artifacts_secret)
    if store is None or store.admin is None or secret is None:
        return None
    admin, pair = store.admin, Pair(*secrets.STORE_KEY)
    name, policy = bucket_policy.name(owner), bucket.policy(work, store)

    async def master() -> Admin:
        key = credentials.store.own or AccessKey("", "")
        seen = await store_place.bucket(work, store, key, credentials.store_ca)
        return (await store_place.administered(work, admin, seen))[1]

    async def let_in(values: Values) -> None:
        user = AccessKey(values[pair.next_who], values[pair.next_word])
        await minio_admin.admit(await master(), user, name, policy)

    async def shut_out(values: Values) -> None:
        await minio_admin.revoke(await master(), values[pair.previous], name)

    return Credential(secret, pair, _another_key(work), let_in, shut_out)


def _embedded_store(work: Work, credentials: Credentials) -> Credential | None:
    """The key of a server's own user of its embedded store."""
    store, embedded = work.server.artifacts.s3, work.server.artifacts.embedded
    secret = work.seen.get(kinds.SECRET, work.server.names.artifacts_secret)
    root, pair = credentials.store.root, Pair(*secrets.OWN_KEY)
    if store is None or embedded is None or root is None or secret is None:
        return None

    async def let_in(values: Values) -> None:
        key = AccessKey(values[pair.next_who], values[pair.next_word])
        await own_store.admit(work, embedded, store, root, key)

    async def shut_out(values: Values) -> None:
        await own_store.revoke(work, embedded, store, root, values[pair.previous])

    return Credential(secret, pair, _another_key(work), let_in, shut_out)


def _another_key(work: Work) -> Callable[[Values], tuple[str, str]]:
    return lambda _: secrets.access_key(work.out.password(), work.out.password())


def _taking_turns(work: Work, owner: str) -> Callable[[Values], tuple[str, str]]:
    names = [f"{owner}{end}" for end in provisioning.LOGINS]

    def following(values: Values) -> tuple[str, str]:
        return rotation.other(values["username"], names), work.out.password()

    return following


def _with_uri(values: dict[str, str]) -> Values:
    before = postgres_uri.parse(values["uri"], "")
    return {"uri": before.opened_by(values["username"], values["password"]).sqlalchemy()}
