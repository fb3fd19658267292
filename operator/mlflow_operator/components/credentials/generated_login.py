"""Generated logins of the embedded database and of a provisioned database: writes the Secret `<name>-database`.

The Secret is written before the login is created, so that no password is ever lost.
"""

from collections.abc import Callable

from mlflow_operator.framework import retained_store
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.generated_secrets import ensure_secret, replace_values
from mlflow_operator.kube import kinds
from mlflow_operator.model import provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_EMBEDDED_USERNAME_KEY, _EMBEDDED_PASSWORD_KEY = "embeddedUsername", "embeddedPassword"

StorageChangeCheck = Callable[[Connection], None]
"""Raises ConfigurationError if the server must not switch to the database of the connection."""


async def embedded(
    context: ReconcileContext, database: EmbeddedDatabase, check_storage_change: StorageChangeCheck
) -> Connection:
    """Return the connection with the login from the Secret.

    If the server used a provisioned database in the meantime, the embedded login is restored from its separate keys.
    """
    names = context.server.names
    secret = context.observed.get(kinds.SECRET, names.database_secret)
    current = secrets.text_values(secret) if secret else {}

    def connection_for(username: str, password: str) -> Connection:
        return Connection(database.host, database.port, database.database, username, password)

    if secret and current.get("host") not in {None, database.host}:
        connection = connection_for(*await _embedded_login(context, database, current))
        check_storage_change(connection)
        await replace_values(context, secret, secrets.database_values(connection))
        return connection
    values = await ensure_secret(
        context,
        names.embedded_database,
        ("username", "password"),
        lambda: secrets.database_secret(
            context.server.owner, connection_for(database.username, context.deps.generate_password())
        ),
    )
    connection = connection_for(values["username"], values["password"])
    check_storage_change(connection)
    return connection


async def _embedded_login(
    context: ReconcileContext, database: EmbeddedDatabase, current: dict[str, str]
) -> tuple[str, str]:
    """Return the login of the embedded database from a Secret with another host.

    It is generated only if the server has never had an embedded database. Raises ConfigurationError if the Secret has
    lost it.
    """
    names = context.server.names
    if _is_embedded_login(context.server.owner, current):
        return current["username"], current["password"]
    password = current.get(_EMBEDDED_PASSWORD_KEY)
    if not password and await retained_store.exists(context, kinds.PVC, names.postgres_data):
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'Secret "{names.database_secret}" has no key "{_EMBEDDED_PASSWORD_KEY}", but the data in volume '
            f'"{names.postgres_data}" can be read only with this password. The operator does not generate another '
            "password. Restore the key from a backup of the Secret, or set spec.database back to the previous value.",
        )
    return (
        current.get(_EMBEDDED_USERNAME_KEY) or database.username,
        password or context.deps.generate_password(),
    )


def _is_embedded_login(owner: ServerRef, values: dict[str, str]) -> bool:
    """Whether the values of the Secret are the login of the embedded database.

    Its host is in another namespace if a backup of the cluster was restored into this namespace.
    """
    host, username = values.get("host") or "", values.get("username") or ""
    if host == f"{owner.names.postgres}.{owner.namespace}.svc":
        return True
    usernames = {EmbeddedDatabase.username, *provisioning.logins(EmbeddedDatabase.username)}
    same_name = host.startswith(f"{owner.names.postgres}.") and host.endswith(".svc") and host.count(".") == 2
    return same_name and username in usernames and bool(values.get("password"))


async def provisioned(
    context: ReconcileContext, database: ProvisionedDatabase, check_storage_change: StorageChangeCheck
) -> Connection:
    """Return the connection with the login from the Secret, or with a new login if the Secret does not exist.

    A lost Secret does no harm: the operator sets a new password with the administrator's credentials. If the server
    used the embedded database before, the Secret keeps the embedded login under separate keys: nothing else gives
    access to the data in the volume that remains.
    """
    owner, logins = context.server.owner, provisioning.logins(database.role)
    secret = context.observed.get(kinds.SECRET, owner.names.database_secret)
    current = (
        secrets.text_values(secret)
        if secret
        else {"username": logins[0], "password": context.deps.generate_password()}
    )
    embedded_login = {}
    if _is_embedded_login(owner, current):
        embedded_login = {
            _EMBEDDED_USERNAME_KEY: current.get("username", ""),
            _EMBEDDED_PASSWORD_KEY: current.get("password", ""),
        }
        current = {"username": logins[0], "password": context.deps.generate_password()}
    await _require_login_keys(context, current)
    # If the role name changed, the new role gets the same password. The previous role is not changed.
    username = current["username"] if current["username"] in logins else logins[0]
    connection = Connection(database.host, database.port, database.database, username, current["password"])
    connection = connection.with_tls(database.tls, None)
    check_storage_change(connection)
    secret = await context.ensure(secret or secrets.database_secret(owner, connection), data=True)
    await replace_values(context, secret, {**embedded_login, **secrets.database_values(connection)})
    return connection


async def _require_login_keys(context: ReconcileContext, values: dict[str, str]) -> None:
    names = context.server.names
    missing = next((key for key in ("username", "password") if not values.get(key)), None)
    if missing is None:
        return
    # The Secret may also contain the only copy of the password of an embedded database.
    is_needed = await retained_store.exists(context, kinds.PVC, names.postgres_data)
    deletion = (
        ""
        if is_needed
        else ", or delete the whole Secret; the operator then creates a new one with another password"
    )
    raise ConfigurationError(
        Reason.SECRET_KEY_MISSING,
        f'Secret "{names.database_secret}" has lost its key "{missing}". Restore the key from a backup{deletion}.',
    )
