"""The tables of basic-auth and its administrator. It is put in front of the code of the programs that change them."""

from contextlib import closing, contextmanager

import psycopg2

from .database_common import MIGRATION_LOCK, libpq_uri
from .network_common import when_network_ready

ADMIN_VARIABLE = "MLFLOW_OPERATOR_AUTH_ADMIN"
ADMIN_PASSWORD_VARIABLE = "MLFLOW_OPERATOR_AUTH_ADMIN_PASSWORD"  # noqa: S105 - the name of a variable
MIN_PASSWORD_CHARS = 12
"""As in MLflow."""
PUBLIC_PASSWORD = "password1234"  # noqa: S105 - publicly known
"""Early releases of MLflow had this default password. Servers refuse it for administrators."""

TIMEOUT_SETTINGS = (
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
)
"""Settings that could end the transaction with the lock, or the wait for it. The last one is new in Postgres 17."""


class AccountError(Exception):
    """The administrator's account cannot be created or changed."""


@contextmanager
def migration_lock(uri):
    """Hold the lock for changes of the schema. The result is a cursor in the transaction that holds it.

    An advisory lock makes other migrations wait, even those that the operator did not start. A transaction, which stays
    open during the migration, holds the lock. Behind a connection pooler in transaction mode, a lock of the session
    would stay with a session that the pooler passes to other clients, and the next migration would wait for it.
    """
    with closing(when_network_ready(lambda: psycopg2.connect(libpq_uri(uri)))) as session:
        # a stricter level, possibly the default of the role, would show the tables in the state before the migration
        session.set_session(isolation_level="READ COMMITTED")
        cursor = session.cursor()
        cursor.execute(
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY(%s)",
            [list(TIMEOUT_SETTINGS)],
        )
        print("waiting for the migration lock", flush=True)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        yield cursor
        session.commit()


def administrator(environ):
    """Return username and password of the administrator; None if the server does not use basic-auth."""
    if not environ.get(ADMIN_VARIABLE) or ADMIN_PASSWORD_VARIABLE not in environ:
        return None
    password = environ[ADMIN_PASSWORD_VARIABLE]
    if len(password) < MIN_PASSWORD_CHARS:
        raise AccountError(
            f"the administrator's password has {len(password)} characters; at least {MIN_PASSWORD_CHARS} are required"
        )
    if password == PUBLIC_PASSWORD:
        raise AccountError(
            "the administrator's password is a former default password of MLflow; use another one"
        )
    return environ[ADMIN_VARIABLE], password


def prepare_accounts(uri, username, password):
    """Migrate the tables, and create the administrator or change the account. Returns a text that says what was done.

    `mlflow db upgrade` leaves the tables to the servers. If several servers start at once, all but one of them fail.
    """
    try:
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    except ImportError as error:
        raise AccountError(f"this image has no basic-auth: {error}") from error
    store = SqlAlchemyStore()
    store.init_db(uri)
    # errors would contain the hash of the password
    store.engine.hide_parameters = True
    try:
        done = ensure_administrator(store, username, password)
    finally:
        store.engine.dispose()
    return f'administrator "{username}": {done}'


def ensure_administrator(store, username, password):
    """Create the administrator, or change what differs."""
    if not store.has_user(username):
        store.create_user(username, password, is_admin=True)
        return "created"
    changes = {}
    if not store.get_user(username).is_admin:
        changes["is_admin"] = True
    if not store.authenticate_user(username, password):
        changes["password"] = password
    if not changes:
        return "unchanged"
    store.update_user(username, **changes)
    return " and ".join(
        text
        for name, text in {"password": "password reset", "is_admin": "made administrator again"}.items()
        if name in changes
    )
