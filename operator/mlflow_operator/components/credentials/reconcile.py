"""Generate or read the credentials of the database and the artifact store, and write the Secret of the server's pods.

Owns: condition CredentialsReady, which rotation reports; Secret `<name>-server`; the Secrets `<name>-database` and
`<name>-artifacts` if their contents are generated; the Secret `<name>-admin` with a generated password; the Secret
`<name>-encryption`, which `encryption` creates for a new server. A credential is generated only if there is none.
Needs: nothing from other components.
Provides: `Credentials` for database, artifacts, authentication, server, rotation and backup;
`Credentials.switches_database` for restore, upgrade and migration; `switch_database` for server.
"""

from dataclasses import dataclass
from urllib.parse import quote

from mlflow_operator.components.credentials import administrator, encryption
from mlflow_operator.components.credentials import database as database_credentials
from mlflow_operator.components.credentials.s3 import StoreKeys, store_keys
from mlflow_operator.framework.component import ReconcileContext, Result, component
from mlflow_operator.framework.platform_errors import of_platform
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, mlflow_env, secrets, storage_location
from mlflow_operator.model.platform import Part
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, EncryptionKeys, ProvisionedDatabase
from mlflow_operator.status.conditions import ConditionType, true_condition

_MIN_REDACTED_CHARS = 5
"""Shorter values are not redacted: they occur in ordinary words, and redacting them would hide nothing."""


@dataclass(frozen=True)
class Credentials:
    """Credentials of the database and the artifact store.

    `connection` is for use by the operator. `store` contains no keys if the pods use workload identity.
    `rollout_key` keys the digests in annotations, so that secret values cannot be guessed from them. `encryption`:
    the encryption keys that the pods get, and their values. `admin_password`: the password of MLflow's administrator,
    None without authentication.
    `pending_secret` is set while the pods still use the previous database: the Secret `<name>-server` to write once
    they can switch.
    """

    connection: Connection
    database_ca: str | None
    store: StoreKeys
    store_ca: str | None
    rollout_key: bytes
    encryption: EncryptionKeys
    encryption_values: tuple[str, ...] = ()
    pending_secret: Object | None = None
    admin_password: str | None = None

    @property
    def switches_database(self) -> bool:
        """Whether the pods still use another database."""
        return self.pending_secret is not None

    def redact(self, message: str) -> str:
        """Replace every password and key in `message`: a crashing container may print its credentials."""
        keys = [key.secret for key in (self.store.service_key, self.store.root_key) if key]
        values = (
            self.connection.password,
            *keys,
            self.rollout_key.decode(),
            *self.encryption_values,
            self.admin_password or "",
        )
        for value in (form for secret in values for form in (secret, quote(secret, safe=""))):
            if len(value) >= _MIN_REDACTED_CHARS:
                message = message.replace(value, "•••")
        return message

    def __repr__(self) -> str:
        """Contains no secret value, because it may be logged."""
        return f"Credentials({self.connection})"


@component(ConditionType.CREDENTIALS)
async def reconcile(context: ReconcileContext) -> Result[Credentials]:
    """Ensure that every credential exists and that the Secret of the server's pods contains it."""
    connection = await database_credentials.resolve_connection(context)
    encryption_keys = await encryption.ensure_keys(context)
    admin_password = await administrator.ensure_password(context)
    store_credentials = await store_keys(context)
    database, store = context.server.database, context.server.artifacts.s3
    database_origin = database.origin if isinstance(database, ProvisionedDatabase) else None
    with of_platform(database_origin, Part.DATABASE):
        database_ca = await context.reader.optional_value(context.server.database_ca_source)
    with of_platform(store.origin if store else None, Part.ARTIFACTS):
        store_ca = await context.reader.optional_value(store.ca_source or store.ca) if store else None
    root_key = store_credentials.root_key
    store_config = (
        secrets.embedded_store_config(context.server.artifacts, root_key.id, root_key.secret)
        if root_key
        else {}
    )
    copies = _copied_cas(context, database_ca, store_ca)
    rollout_key, pending_secret = await _ensure_server_secret(context, connection, store_config | copies)
    return Result(
        true_condition(ConditionType.CREDENTIALS, "All credentials are available."),
        Credentials(
            connection,
            database_ca,
            store_credentials,
            store_ca,
            rollout_key.encode(),
            encryption_keys,
            await encryption.secret_values(context),
            pending_secret,
            admin_password,
        ),
    )


def _copied_cas(context: ReconcileContext, database_ca: str | None, store_ca: str | None) -> dict[str, str]:
    """The CA certificates of a platform, by the keys that the pods read them from."""
    database, store = context.server.database, context.server.artifacts.s3
    copies = {}
    if isinstance(database, ProvisionedDatabase) and database.ca_source and database_ca:
        copies[secrets.DATABASE_CA_KEY] = database_ca
    if store and store.ca_source and store_ca:
        copies[secrets.ARTIFACTS_CA_KEY] = store_ca
    return copies


async def switch_database(context: ReconcileContext, credentials: Credentials) -> None:
    """Write the new database into the Secret of the server's pods. Its schema must be ready."""
    if credentials.pending_secret:
        await context.ensure(credentials.pending_secret)


async def _ensure_server_secret(
    context: ReconcileContext, connection: Connection, other_values: dict[str, str]
) -> tuple[str, Object | None]:
    """Return the rollout key and, if the pods still use another database, the Secret to write once they can switch."""
    name, namespace = context.server.names.server_secret, context.server.owner.namespace
    # Also read by name: a Secret without its labels would get a new rollout key, which restarts all pods needlessly.
    secret = context.observed.get(kinds.SECRET, name)
    if secret is None and not context.is_absent(kinds.SECRET, name):
        secret = await context.deps.cluster.get(kinds.SECRET, namespace, name)
    values = secrets.text_values(secret) if secret else {}
    rollout_key = values.get(secrets.ROLLOUT_KEY) or context.deps.generate_password()
    database_changes = storage_location.database_changed(context.observed.status, connection)
    database = context.server.database
    if not isinstance(database, EmbeddedDatabase) and database.ca:
        connection = connection.with_tls(database.tls, container_parts.ca_path(mlflow_env.DATABASE_CA_VOLUME))
    uri, owner = secrets.pod_database_uri(connection), context.server.owner
    desired = secrets.server_secret(owner, uri, rollout_key, **other_values)
    current_uri = values.get(mlflow_env.BACKEND_STORE_KEY)
    if not database_changes or current_uri in {None, uri}:
        await context.ensure(desired)
        return rollout_key, None
    extra_values = {**other_values, mlflow_env.NEXT_STORE_KEY: uri}
    await context.ensure(secrets.server_secret(owner, current_uri or uri, rollout_key, **extra_values))
    return rollout_key, desired
