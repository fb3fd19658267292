"""Migrate the schema to the revision that this image's MLflow needs.

An advisory lock makes other migrations wait, even those that the operator did not start. A transaction, which stays
open during the migration, holds the lock. Behind a connection pooler in transaction mode, a lock of the session would
stay with a session that the pooler passes to other clients, and the next migration would wait for it. MLflow is called
in this process, never as a command, because the arguments would show the password in the process list.
"""

import os
import sys
import traceback
from contextlib import closing

import psycopg2
from database_common import MIGRATION_LOCK, libpq_uri
from mlflow.db import commands
from mlflow.store.tracking.dbmodels.initial_models import Base
from network_common import when_network_ready
from sqlalchemy import create_engine

MAX_ERROR_CHARS = 1500
"""Kubernetes keeps 2 KiB of a pod's log as termination message. SQLAlchemy appends the statement to its errors, and a
long statement would leave no room for the message of the database."""

TIMEOUT_SETTINGS = (
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
)
"""Settings that could end the transaction with the lock, or the wait for it. The last one is new in Postgres 17."""

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


with closing(when_network_ready(lambda: psycopg2.connect(libpq_uri(uri)))) as session:
    # a stricter level, possibly the default of the role, would show the tables in the state before the migration
    session.set_session(isolation_level="READ COMMITTED")
    cursor = session.cursor()
    cursor.execute(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY(%s)", [list(TIMEOUT_SETTINGS)]
    )
    print("waiting for the migration lock", flush=True)
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
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
    except Exception as error:
        traceback.print_exc()
        if len(str(error)) > MAX_ERROR_CHARS:
            print(getattr(error, "orig", None) or str(error)[:MAX_ERROR_CHARS], file=sys.stderr)
        sys.exit(1)
    cursor.execute("SELECT version_num FROM alembic_version")
    revision = cursor.fetchone()
    session.commit()
print(f"the schema is at revision {revision[0]}", flush=True)
sys.exit(0)
