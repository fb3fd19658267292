"""Serve MLflow's basic-auth application, whose roles decide what a user may do.

MLflow itself verifies the password two to six times for each request, on some paths in the event loop, where it delays
all other requests. `app` and `app_without_fast_path` check it once, before MLflow sees the request (see
`request_login`), and MLflow's own checks use this result. `app_with_cache` is for versions of MLflow whose internals
are not known: they check passwords themselves and remember right ones for CACHE_SECONDS, so a changed password remains
valid that long.

None of them migrates tables or creates the administrator: several servers that do this at once fail. A Job does it.
"""

import contextlib
import functools
import os
import secrets
import sys
from types import SimpleNamespace

from . import model_sources
from .password_check import PasswordCheck
from .request_login import GATEWAY_TOKEN_ENV, login, route, with_closed_paths, with_credentials, with_login

ADMIN_ENV = "MLFLOW_OPERATOR_AUTH_ADMIN"
DEFAULT_PERMISSION_ENV = "MLFLOW_OPERATOR_AUTH_DEFAULT_PERMISSION"
CONFIG_FILE = ".mlflow-operator-auth.ini"
"""File in HOME, a volume in memory. It contains the URI of the database."""
CACHE_SECONDS = 60
SERVER_ENV = "_MLFLOW_SGI_NAME"
"""MLflow's command sets this variable for the processes of the server, but not for itself."""
METRICS_PATH = "/metrics"


def write_config():
    """Write the configuration file of MLflow's basic-auth, which contains the password of the database."""
    settings = {
        "default_permission": os.environ[DEFAULT_PERMISSION_ENV],
        "database_uri": os.environ["MLFLOW_BACKEND_STORE_URI"],
        "admin_username": os.environ[ADMIN_ENV],
        # MLflow 3.14 requires the key
        "admin_password": "",
        "auth_cache_ttl_seconds": str(CACHE_SECONDS),
    }
    # MLflow reads the file with interpolation
    lines = [f"{name} = {value.replace('%', '%%')}" for name, value in settings.items()]
    path = os.path.join(os.path.expanduser("~"), CONFIG_FILE)
    # other processes of this server may read the file at the same time
    temporary = f"{path}.{os.getpid()}"
    with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join(["[mlflow]", *lines, ""]))
    os.replace(temporary, path)
    return path


@functools.cache
def load():
    """Import MLflow's basic-auth, which reads its configuration when it is imported, and return the module."""
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = write_config()
    from mlflow.server import auth, handlers
    from mlflow.server.auth.db import utils

    model_sources.protect(handlers)

    # not by servers: see above
    utils.migrate_if_needed = lambda *arguments: None
    auth.create_admin_user = lambda *arguments: None
    is_public = auth.is_unprotected_route
    # Prometheus has no account. The metrics contain numbers of requests by method and status only.
    auth.is_unprotected_route = lambda path: route(path) == METRICS_PATH or is_public(path)
    return auth


def create_app(auth):
    """Return MLflow's basic-auth application."""
    application = auth.create_app()
    if not hasattr(application, "router"):
        sys.exit("Authentication requires uvicorn. Remove the options of gunicorn or waitress from spec.env.")
    return application


def share_tracking_store(store):
    """Make the store of users and roles use the connections of the tracking store: both are in the same database."""
    from mlflow.server import handlers

    def managed_session(*arguments, **options):
        tracking_store = handlers._get_tracking_store()
        # the log would have the hash of a new password if the database fails while it is stored
        tracking_store.engine.hide_parameters = True
        return tracking_store.ManagedSessionMaker(*arguments, **options)

    # not yet in this process: uvicorn may still fork
    store.init_db = lambda *arguments, **options: setattr(store, "ManagedSessionMaker", managed_session)


def load_with_login():
    """Return MLflow's basic-auth module, changed so that it does not check passwords itself."""
    auth = load()
    # it would still accept a changed password
    auth._USER_AUTH_CACHE = None
    share_tracking_store(auth.store)
    use_login(auth.store)
    read_grants_fast(auth.store)
    read_runs_fast(auth)
    return auth


def protected(application):
    """Wrap an ASGI application that uses the module of `load_with_login`."""
    check = PasswordCheck(account_reader(), password_matches)
    return with_closed_paths(with_login(application, check, load().is_unprotected_route))


def read_rows(query, **values):
    """Return the rows of a query, without the statements BEGIN and COMMIT."""
    from mlflow.server import handlers

    # not from a replica for reading, which may still have a changed password
    engine = handlers._get_tracking_store().engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return connection.execute(query, values).all()


def account_reader():
    """Return a function that reads the account of a user with one query."""
    from mlflow.server.auth.db.models import SqlUser
    from sqlalchemy import bindparam, select

    columns = (SqlUser.id, SqlUser.username, SqlUser.password_hash, SqlUser.is_admin)
    query = select(*columns).where(SqlUser.username == bindparam("name"))
    # usernames are unique
    return lambda username: next(iter(read_rows(query, name=username)), None)


def read_runs_fast(auth):
    """Make permission checks read only the experiment of a run, not also its metrics, parameters, tags and inputs.

    They use nothing else of it, and reading all took longer than writing a metric.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import bindparam, select

    get_store = auth._get_tracking_store
    query = select(SqlRun.experiment_id).where(SqlRun.run_uuid == bindparam("run"))

    class Store:
        """A tracking store whose method `get_run` returns just that."""

        def __getattr__(self, name):
            return getattr(get_store(), name)

        def get_run(self, run_id):
            for row in read_rows(query, run=run_id):
                return SimpleNamespace(info=SimpleNamespace(experiment_id=str(row.experiment_id)))
            return get_store().get_run(run_id)

    if not MLFLOW_ENABLE_WORKSPACES.get():
        # with workspaces, the store hides runs of other workspaces
        auth._get_tracking_store = lambda *arguments: Store() if not arguments else get_store(*arguments)


def read_grants_fast(store):
    """Replace the query for the permissions of a user by one that SQLAlchemy need not compile for each request."""
    from mlflow.server.auth import sqlalchemy_store
    from mlflow.server.auth.db.models import SqlRole, SqlRolePermission, SqlUserRoleAssignment
    from sqlalchemy import bindparam, select

    columns = (
        SqlRolePermission.resource_type,
        SqlRolePermission.resource_pattern,
        SqlRolePermission.permission,
    )
    query = (
        select(*columns)
        .join(SqlRole, SqlRole.id == SqlRolePermission.role_id)
        .join(SqlUserRoleAssignment, SqlUserRoleAssignment.role_id == SqlRole.id)
        .where(
            SqlUserRoleAssignment.user_id == bindparam("user"),
            SqlRole.workspace == bindparam("workspace"),
            SqlRolePermission.resource_type.in_(bindparam("types", expanding=True)),
        )
    )

    def list_grants(user_id, workspace, resource_types):
        types = sorted({*resource_types, "workspace"})
        rows = read_rows(query, user=user_id, workspace=workspace, types=types)
        return [sqlalchemy_store.RoleGrantRow(*row) for row in rows]

    store.list_grants = list_grants


def use_login(store):
    """Make MLflow's own checks use the login of the request instead of checking the password again."""
    from mlflow.server.auth.entities import User

    get_stored_user = store.get_user

    def authenticate_user(username, password, *, use_primary=False):
        verified = login.get()
        return verified is not None and (verified.username, verified.password) == (username, password)

    def get_user(username):
        verified = login.get()
        if verified is None or verified.username != username:
            return get_stored_user(username)
        account = verified.user
        return User(account.id, account.username, account.password_hash, account.is_admin)

    store.authenticate_user, store.get_user = authenticate_user, get_user


def password_matches(stored_hash, password):
    """Compare a stored hash with a password."""
    from werkzeug.security import check_password_hash, generate_password_hash

    if stored_hash is None:
        generate_password_hash(password)
        return False
    return check_password_hash(stored_hash, password)


def app():
    """The ASGI application with password checks of its own, and with the fast path."""
    from mlflow.server import fastapi_app

    from . import direct

    # the fast path passes other requests to MLflow's application, and hides the assistant
    fastapi_app.app = create_app(load_with_login())
    os.environ[direct.ASSISTANT_ENV] = "false"
    # the module exists if the platform of the server limits its connections
    with contextlib.suppress(ImportError):
        from . import small_pool

        small_pool.limit_threads()
    return protected(direct.app())


def app_without_fast_path():
    """The ASGI application with password checks of its own."""
    return protected(create_app(load_with_login()))


def app_with_cache():
    """The ASGI application with MLflow's own password checks."""
    application = create_app(load())
    load().store.engine.hide_parameters = True
    return with_closed_paths(with_credentials(application, load().is_unprotected_route))


if SERVER_ENV in os.environ:
    # before the workers are forked, which then share the memory
    load()
elif os.environ.get("MLFLOW_SERVER_ENABLE_JOB_EXECUTION") == "true":
    os.environ.setdefault(GATEWAY_TOKEN_ENV, secrets.token_hex(32))
