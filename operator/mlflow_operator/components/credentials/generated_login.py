"""Logins that are generated, in the Secret `<name>-database`: for the embedded database, and for a provisioned one.

The Secret is written before the login is made, so that none is ever lost. A server that moves from one to the other
keeps the embedded one's credentials in it, under keys of their own: nothing else opens the volume that stays behind.
"""

from collections.abc import Callable

from mlflow_operator.framework.generated_secrets import ensure_secret, replace_values
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.model import provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_USERNAME, _PASSWORD = "embeddedUsername", "embeddedPassword"

Allowed = Callable[[Connection], None]
"""Raises if the server may not move to where a connection leads."""


async def embedded(context: ReconcileContext, database: EmbeddedDatabase, allowed: Allowed) -> Connection:
    """As the Secret says; put back into its place where the server was on a provisioned database meanwhile."""
    names = context.server.names
    live = context.observed.get(kinds.SECRET, names.database_secret)
    held = secrets.decoded(live) if live else {}

    def login(username: str, password: str) -> Connection:
        return Connection(database.host, database.port, database.database, username, password)

    if live and held.get("host") not in {None, database.host}:
        found = login(
            held.get(_USERNAME) or database.username, held.get(_PASSWORD) or context.deps.generate_password()
        )
        allowed(found)
        await replace_values(context, live, secrets.database_values(found))
        return found
    values = await ensure_secret(
        context,
        names.database_secret,
        names.postgres_data,
        ("username", "password"),
        lambda: secrets.database_secret(
            context.server.owner, login(database.username, context.deps.generate_password())
        ),
    )
    found = login(values["username"], values["password"])
    allowed(found)
    return found


async def provisioned(
    context: ReconcileContext, database: ProvisionedDatabase, allowed: Allowed
) -> Connection:
    """As the Secret says, or another one: one that is lost is no harm, for the administrator sets another password."""
    owner, logins = context.server.owner, provisioning.logins(database.role)
    live = context.observed.get(kinds.SECRET, owner.names.database_secret)
    held = (
        secrets.decoded(live)
        if live
        else {"username": logins[0], "password": context.deps.generate_password()}
    )
    kept = {}
    if held.get("host") == f"{owner.names.postgres}.{owner.namespace}.svc":
        kept = {_USERNAME: held.get("username", ""), _PASSWORD: held.get("password", "")}
        held = {"username": logins[0], "password": context.deps.generate_password()}
    _complete(owner.names.database_secret, held)
    # the same password for a role of another name: the one of before stays as it was
    username = held["username"] if held["username"] in logins else logins[0]
    found = Connection(database.host, database.port, database.database, username, held["password"])
    found = found.with_tls(database.tls, None)
    allowed(found)
    live = await context.ensure(live or secrets.database_secret(owner, found), data=True)
    await replace_values(context, live, {**kept, **secrets.database_values(found)})
    return found


def _complete(name: str, held: dict[str, str]) -> None:
    for key in ("username", "password"):
        if not held.get(key):
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore it from a backup; or delete the whole Secret: '
                "then it is made anew, with another password.",
            )
