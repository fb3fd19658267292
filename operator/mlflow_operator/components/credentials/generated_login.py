"""Generated logins of the embedded database and of a provisioned database: writes the Secret `<name>-database`.

The Secret is written before the login is created, so that no password is ever lost.
"""

from collections.abc import Callable

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.generated_secrets import ensure_secret, replace_values
from mlflow_operator.kube import kinds
from mlflow_operator.model import provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase
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
        connection = connection_for(
            current.get(_EMBEDDED_USERNAME_KEY) or database.username,
            current.get(_EMBEDDED_PASSWORD_KEY) or context.deps.generate_password(),
        )
        check_storage_change(connection)
        await replace_values(context, secret, secrets.database_values(connection))
        return connection
    values = await ensure_secret(
        context,
        names.database_secret,
        names.postgres_data,
        ("username", "password"),
        lambda: secrets.database_secret(
            context.server.owner, connection_for(database.username, context.deps.generate_password())
        ),
    )
    connection = connection_for(values["username"], values["password"])
    check_storage_change(connection)
    return connection


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
    if current.get("host") == f"{owner.names.postgres}.{owner.namespace}.svc":
        embedded_login = {
            _EMBEDDED_USERNAME_KEY: current.get("username", ""),
            _EMBEDDED_PASSWORD_KEY: current.get("password", ""),
        }
        current = {"username": logins[0], "password": context.deps.generate_password()}
    _require_login_keys(owner.names.database_secret, current)
    # If the role name changed, the new role gets the same password. The previous role is not changed.
    username = current["username"] if current["username"] in logins else logins[0]
    connection = Connection(database.host, database.port, database.database, username, current["password"])
    connection = connection.with_tls(database.tls, None)
    check_storage_change(connection)
    secret = await context.ensure(secret or secrets.database_secret(owner, connection), data=True)
    await replace_values(context, secret, {**embedded_login, **secrets.database_values(connection)})
    return connection


def _require_login_keys(secret_name: str, values: dict[str, str]) -> None:
    for key in ("username", "password"):
        if not values.get(key):
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{secret_name}" has lost its key "{key}". Restore the key from a backup, or delete the '
                "whole Secret; the operator then creates a new one with another password.",
            )
