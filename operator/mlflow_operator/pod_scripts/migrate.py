"""Migrate the schema to the revision that this image's MLflow needs.

MLflow is called in this process, never as a command, because the arguments would show the password in the process list.
If the server uses basic-auth, this also creates the administrator, so a new server needs no second Job.
"""

import os
import sys
import traceback

from auth_tables_common import AccountError, administrator, migration_lock, prepare_accounts
from mlflow.db import commands
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine

MAX_ERROR_CHARS = 1500
"""Kubernetes keeps 2 KiB of a pod's log as termination message. SQLAlchemy appends the statement to its errors, and a
long statement would leave no room for the message of the database."""

AUTH_TABLES_QUERY = """
    SELECT to_regclass('alembic_version_auth') IS NOT NULL
        OR to_regclass('users') IS NOT NULL AND to_regclass('experiment_permissions') IS NOT NULL
"""
"""Whether a server with basic-auth stored its users here. Before MLflow 3.6 they have no own alembic revision."""

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]


def create_initial_tables():
    """Create the tables that MLflow had before its first migration. Releases up to at least 2.22 require them."""
    engine = create_engine(uri)
    Base.metadata.create_all(engine)
    engine.dispose()


def migrate_auth_tables():
    """Migrate the tables of basic-auth.

    `mlflow db upgrade` leaves them to the servers; if several servers start at once, all but one of them fail.
    """
    try:
        from mlflow.server.auth.db import utils
    except ImportError as error:
        print(f"skipping the basic-auth tables: this image has no basic-auth: {error}", flush=True)
        return
    if not hasattr(utils, "_is_legacy_database"):
        # before 3.6 MLflow would use the alembic revision of all other tables
        print("skipping the basic-auth tables: they have no revision in this MLflow version", flush=True)
        return
    engine = create_engine(uri)
    utils.migrate(engine, "head")
    engine.dispose()


try:
    account = administrator(os.environ)
except AccountError as error:
    sys.exit(str(error))
accounts = None
with migration_lock(uri) as cursor:
    print("migrating", flush=True)
    cursor.execute("SELECT to_regclass('alembic_version')")
    empty = cursor.fetchone()[0] is None
    try:
        cursor.execute(AUTH_TABLES_QUERY)
        if cursor.fetchone()[0]:
            # first: if this fails, the tables that servers of the previous version read are unchanged
            migrate_auth_tables()
        if empty:
            create_initial_tables()
        commands(["upgrade", uri], standalone_mode=False)
        if account:
            accounts = prepare_accounts(uri, *account)
    except AccountError as error:
        sys.exit(str(error))
    except Exception as error:
        traceback.print_exc()
        if len(str(error)) > MAX_ERROR_CHARS:
            print(getattr(error, "orig", None) or str(error)[:MAX_ERROR_CHARS], file=sys.stderr)
        sys.exit(1)
    cursor.execute("SELECT version_num FROM alembic_version")
    revision = cursor.fetchone()
print(f"the schema is at revision {revision[0]}", flush=True)
if accounts:
    print(accounts, flush=True)
sys.exit(0)
