"""The credentials that the operator can rotate: their Secrets, and how a store grants and revokes access.

It creates and deletes the logins and access keys in the stores; `reconcile` writes the Secrets.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import clients as store_clients
from mlflow_operator.components.artifacts import embedded as embedded_bucket
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.database.reconcile import resolve_for_pods
from mlflow_operator.components.rotation import state
from mlflow_operator.components.rotation.state import CredentialKeys, Stage, Values
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.platform_errors import of_platform
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, postgres_uri, provisioning, secrets
from mlflow_operator.model.platform import Part
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


@dataclass(frozen=True)
class RotatedCredential:
    """A credential that can be rotated.

    `secret` contains it. `generate_next` returns the next username and password. `grant` gives the next credential
    access, `revoke` deletes the previous one; both take the values of the Secret and are idempotent.
    """

    secret: Object
    keys: CredentialKeys
    generate_next: Callable[[Values], tuple[str, str]]
    grant: Callable[[Values], Awaitable[None]]
    revoke: Callable[[Values], Awaitable[None]]

    @property
    def values(self) -> dict[str, str]:
        """The text values of the Secret."""
        return secrets.text_values(self.secret)

    def stage(self, requested_at: str | None, now: str) -> Stage:
        """The next action for this credential. `requested_at` is `spec.rotateCredentialsAt`."""
        created_at = self.secret["metadata"].get("creationTimestamp")
        return state.stage(self.values, self.keys, state.is_due(self.values, created_at, requested_at, now))


def rotated_credentials(context: ReconcileContext, credentials: Credentials) -> list[RotatedCredential]:
    """Return the rotatable credentials of a server whose Secrets exist."""
    database = context.server.database
    candidates = (
        _embedded_database(context, database, credentials)
        if isinstance(database, EmbeddedDatabase)
        else None,
        _provisioned_database(context, database, credentials)
        if isinstance(database, ProvisionedDatabase)
        else None,
        _provisioned_store(context, credentials),
        _embedded_store(context, credentials),
        _administrator(context),
    )
    return [credential for credential in candidates if credential]


def has_user_managed(context: ReconcileContext) -> bool:
    """Whether the server also uses credentials that the user must rotate."""
    store = context.server.artifacts.s3
    embedded = context.server.artifacts.embedded
    has_user_key = store is not None and store.access_key is not None and not embedded and not store.admin
    has_user_password = context.server.auth is not None and not context.server.auth.is_generated
    return (
        has_user_key
        or has_user_password
        or not isinstance(context.server.database, EmbeddedDatabase | ProvisionedDatabase)
    )


def _embedded_database(
    context: ReconcileContext, database: EmbeddedDatabase, credentials: Credentials
) -> RotatedCredential | None:
    secret = context.reader.latest(kinds.SECRET, context.server.names.database_secret)
    if secret is None:
        return None
    connection, owner, field = credentials.connection, database.username, "spec.database.embedded"
    keys = CredentialKeys("username", "password", _derive_uri)

    async def grant(values: Values) -> None:
        login = Login(values[keys.next_username_key], values[keys.next_password_key])
        await context.deps.postgres_roles.ensure_login(connection, owner, login, field)

    async def revoke(values: Values) -> None:
        await context.deps.postgres_roles.delete_login(
            connection, owner, values[keys.previous_username_key], field
        )

    return RotatedCredential(secret, keys, _alternate_login_generator(context, owner), grant, revoke)


def _provisioned_database(
    context: ReconcileContext, database: ProvisionedDatabase, credentials: Credentials
) -> RotatedCredential | None:
    secret = context.reader.latest(kinds.SECRET, context.server.names.database_secret)
    if secret is None:
        return None
    keys, field = CredentialKeys("username", "password", _derive_uri), database.field

    async def admin_access() -> tuple[Connection, str | None, DatabasePlan]:
        connection = await resolve_for_pods(context, credentials.connection)
        admin = await provisioned.admin_connection(context, database, connection)
        plan = provisioned.plan(context.server, database, await provisioned.cluster_uid(context))
        return admin, await context.deps.ca_files.path_of(credentials.database_ca), plan

    async def grant(values: Values) -> None:
        _require_own_login(database, secret, keys.next_username_key, values)
        login = Login(values[keys.next_username_key], values[keys.next_password_key])
        with of_platform(database.origin, Part.DATABASE):
            await context.deps.postgres_admin.ensure_login(*await admin_access(), login, field)

    async def revoke(values: Values) -> None:
        _require_own_login(database, secret, keys.previous_username_key, values)
        with of_platform(database.origin, Part.DATABASE):
            await context.deps.postgres_admin.delete_login(
                *await admin_access(), values[keys.previous_username_key], field
            )

    return RotatedCredential(secret, keys, _alternate_login_generator(context, database.role), grant, revoke)


def _require_own_login(database: ProvisionedDatabase, secret: Object, key: str, values: Values) -> None:
    """Raise ConfigurationError unless the value of `key` is a login of the server.

    Users of the namespace can write the Secret. With any other name, the administrator would create a role that takes
    the name of another server's, or one more for each edit, although the limit on connections is one of each role.
    """
    if values[key] not in provisioning.logins(database.role):
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{key}" of Secret "{secret["metadata"]["name"]}" is not the name of a login of the server. The '
            "operator writes this key while it rotates credentials, and neither creates nor deletes another role. "
            "Remove the key from the Secret.",
        )


def _provisioned_store(context: ReconcileContext, credentials: Credentials) -> RotatedCredential | None:
    """The key of the server's user in a shared store."""
    store = context.server.artifacts.s3
    secret = context.reader.latest(kinds.SECRET, context.server.names.artifacts_secret)
    if store is None or store.admin is None or secret is None:
        return None
    admin, keys = store.admin, CredentialKeys(*secrets.ACCESS_KEY_FIELDS)
    policy_name, policy = bucket.policy_name(context, store), bucket.policy(context, store)
    ownership, origin = bucket.ownership(context, store), store.origin

    async def admin_api() -> Admin:
        key = credentials.store.service_key or AccessKey("", "")
        server_bucket = await store_clients.bucket(context, store, key, credentials.store_ca)
        return (await store_clients.admin_clients(context, admin, server_bucket))[1]

    async def grant(values: Values) -> None:
        user = AccessKey(values[keys.next_username_key], values[keys.next_password_key])
        with of_platform(origin, Part.ARTIFACTS):
            await context.deps.minio_admin.ensure_user(
                await admin_api(), user, policy_name, policy, ownership
            )

    async def revoke(values: Values) -> None:
        with of_platform(origin, Part.ARTIFACTS):
            await context.deps.minio_admin.delete_user(
                await admin_api(), values[keys.previous_username_key], policy_name
            )

    return RotatedCredential(secret, keys, _access_key_generator(context), grant, revoke)


def _embedded_store(context: ReconcileContext, credentials: Credentials) -> RotatedCredential | None:
    """The key of the server's user in its embedded store."""
    store, embedded = context.server.artifacts.s3, context.server.artifacts.embedded
    secret = context.reader.latest(kinds.SECRET, context.server.names.artifacts_secret)
    root_key, keys = credentials.store.root_key, CredentialKeys(*secrets.SERVER_ACCESS_KEY_FIELDS)
    if store is None or embedded is None or root_key is None or secret is None:
        return None

    async def grant(values: Values) -> None:
        key = AccessKey(values[keys.next_username_key], values[keys.next_password_key])
        await embedded_bucket.ensure_key(context, embedded, store, root_key, key)

    async def revoke(values: Values) -> None:
        await embedded_bucket.delete_key(
            context, embedded, store, root_key, values[keys.previous_username_key]
        )

    return RotatedCredential(secret, keys, _access_key_generator(context), grant, revoke)


def _administrator(context: ReconcileContext) -> RotatedCredential | None:
    """The password of MLflow's administrator. The component `authentication` sets a changed one in the database."""
    auth = context.server.auth
    secret = context.reader.latest(kinds.SECRET, context.server.names.admin_secret)
    if auth is None or not auth.is_generated or secret is None:
        return None

    async def nothing(_: Values) -> None:
        pass

    def generate_next(_: Values) -> tuple[str, str]:
        return auth.administrator, context.deps.generate_password()

    keys = CredentialKeys(authentication.USERNAME, authentication.PASSWORD)
    return RotatedCredential(secret, keys, generate_next, nothing, nothing)


def _access_key_generator(context: ReconcileContext) -> Callable[[Values], tuple[str, str]]:
    return lambda _: secrets.access_key_pair(
        context.deps.generate_password(), context.deps.generate_password()
    )


def _alternate_login_generator(context: ReconcileContext, role: str) -> Callable[[Values], tuple[str, str]]:
    names = [f"{role}{suffix}" for suffix in provisioning.LOGIN_SUFFIXES]

    def generate_next(values: Values) -> tuple[str, str]:
        return state.next_name(values["username"], names), context.deps.generate_password()

    return generate_next


def _derive_uri(values: dict[str, str]) -> Values:
    current = postgres_uri.parse(values["uri"], "")
    return {"uri": current.with_credentials(values["username"], values["password"]).sqlalchemy_uri()}
