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
from mlflow_operator.components.rotation.state import CredentialKeys, Stage, Values
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import postgres_uri, provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase


@dataclass(frozen=True)
class RotatedCredential:
    """One that can be replaced. `secret` holds it, `following` makes up who comes next and by which word.

    `let_in` and `shut_out` are given the Secret's values; both can be done twice.
    """

    secret: Object
    pair: CredentialKeys
    following: Callable[[Values], tuple[str, str]]
    grant: Callable[[Values], Awaitable[None]]
    revoke: Callable[[Values], Awaitable[None]]

    @property
    def values(self) -> dict[str, str]:
        """What the Secret says."""
        return secrets.decoded(self.secret)

    def stage(self, wanted: str | None, now: str) -> Stage:
        """What is to be done with it next; `wanted` is when it was asked to be replaced."""
        made = self.secret["metadata"].get("creationTimestamp")
        return rotation.stage(self.values, self.pair, rotation.due(self.values, made, wanted, now))


def of(context: ReconcileContext, credentials: Credentials) -> list[RotatedCredential]:
    """Those of a server whose Secret is there."""
    database = context.server.database
    found = (
        _embedded_database(context, database, credentials)
        if isinstance(database, EmbeddedDatabase)
        else None,
        _provisioned_database(context, database, credentials)
        if isinstance(database, ProvisionedDatabase)
        else None,
        _shared_store(context, credentials),
        _embedded_store(context, credentials),
    )
    return [each for each in found if each]


def others(context: ReconcileContext) -> bool:
    """Whether there are some that its owner has to replace."""
    store = context.server.artifacts.s3
    embedded = context.server.artifacts.embedded
    theirs = store is not None and store.access_key is not None and not embedded and not store.admin
    return theirs or not isinstance(context.server.database, EmbeddedDatabase | ProvisionedDatabase)


def _embedded_database(
    context: ReconcileContext, database: EmbeddedDatabase, credentials: Credentials
) -> RotatedCredential | None:
    secret = context.observed.get(kinds.SECRET, context.server.names.database_secret)
    if secret is None:
        return None
    connection, owner, field = credentials.connection, database.username, "spec.database.embedded"
    pair = CredentialKeys("username", "password", _with_uri)

    async def let_in(values: Values) -> None:
        login = Login(values[pair.next_username_key], values[pair.next_password_key])
        await postgres_logins.ensure_login(connection, owner, login, field)

    async def shut_out(values: Values) -> None:
        await postgres_logins.delete_login(connection, owner, values[pair.previous], field)

    return RotatedCredential(secret, pair, _taking_turns(context, owner), let_in, shut_out)


def _provisioned_database(
    context: ReconcileContext, database: ProvisionedDatabase, credentials: Credentials
) -> RotatedCredential | None:
    secret = context.observed.get(kinds.SECRET, context.server.names.database_secret)
    if secret is None:
        return None
    pair, field = CredentialKeys("username", "password", _with_uri), provisioned.FIELD

    async def administration() -> tuple[Connection, str | None, DatabasePlan]:
        connection = await as_pods_see_it(context, credentials.connection)
        admin = await provisioned.administrator(context, database, connection)
        plan = provisioned.plan(context.server, database, await provisioned.cluster_uid(context))
        return admin, await ca_files.path_of(credentials.database_ca), plan

    async def let_in(values: Values) -> None:
        login = Login(values[pair.next_username_key], values[pair.next_password_key])
        await postgres_admin.ensure_login(*await administration(), login, field)

    async def shut_out(values: Values) -> None:
        await postgres_admin.delete_login(*await administration(), values[pair.previous], field)

    return RotatedCredential(secret, pair, _taking_turns(context, database.role), let_in, shut_out)


def _shared_store(context: ReconcileContext, credentials: Credentials) -> RotatedCredential | None:
    """The key of a server's own user of a shared store."""
    store, owner = context.server.artifacts.s3, context.server.owner
    secret = context.observed.get(kinds.SECRET, context.server.names.artifacts_secret)
    if store is None or store.admin is None or secret is None:
        return None
    admin, pair = store.admin, CredentialKeys(*secrets.STORE_KEY)
    name, policy = bucket_policy.name(owner), bucket.policy(context, store)

    async def master() -> Admin:
        key = credentials.store.service_key or AccessKey("", "")
        seen = await store_place.bucket(context, store, key, credentials.store_ca)
        return (await store_place.administered(context, admin, seen))[1]

    async def let_in(values: Values) -> None:
        user = AccessKey(values[pair.next_username_key], values[pair.next_password_key])
        await minio_admin.ensure_user(await master(), user, name, policy)

    async def shut_out(values: Values) -> None:
        await minio_admin.delete_user(await master(), values[pair.previous], name)

    return RotatedCredential(secret, pair, _another_key(context), let_in, shut_out)


def _embedded_store(context: ReconcileContext, credentials: Credentials) -> RotatedCredential | None:
    """The key of a server's own user of its embedded store."""
    store, embedded = context.server.artifacts.s3, context.server.artifacts.embedded
    secret = context.observed.get(kinds.SECRET, context.server.names.artifacts_secret)
    root, pair = credentials.store.root_key, CredentialKeys(*secrets.OWN_KEY)
    if store is None or embedded is None or root is None or secret is None:
        return None

    async def let_in(values: Values) -> None:
        key = AccessKey(values[pair.next_username_key], values[pair.next_password_key])
        await own_store.ensure_key(context, embedded, store, root, key)

    async def shut_out(values: Values) -> None:
        await own_store.delete_key(context, embedded, store, root, values[pair.previous])

    return RotatedCredential(secret, pair, _another_key(context), let_in, shut_out)


def _another_key(context: ReconcileContext) -> Callable[[Values], tuple[str, str]]:
    return lambda _: secrets.access_key(context.deps.generate_password(), context.deps.generate_password())


def _taking_turns(context: ReconcileContext, owner: str) -> Callable[[Values], tuple[str, str]]:
    names = [f"{owner}{end}" for end in provisioning.LOGINS]

    def following(values: Values) -> tuple[str, str]:
        return rotation.other(values["username"], names), context.deps.generate_password()

    return following


def _with_uri(values: dict[str, str]) -> Values:
    before = postgres_uri.parse(values["uri"], "")
    return {"uri": before.with_credentials(values["username"], values["password"]).sqlalchemy()}
