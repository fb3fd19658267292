"""Brings the schema up to what this image's MLflow wants, alone.

A lock keeps a second migration waiting, whoever started it. It belongs to a transaction that stays open meanwhile: a
lock of the session would, behind a pooler that lends sessions by the transaction, stay with a session that the pool
lends to others, and the next migration would wait for it. MLflow is called in this process, never as a command: its
arguments would show the password in the process list.
"""

import os
import sys
import traceback
from contextlib import closing

import psycopg2
from mlflow.db import commands
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine

LOCK = 0x6D6C666C6F77  # "mlflow"
KEPT = 1500
"""Characters: of a pod's last words 2 KiB are kept. SQLAlchemy ends its errors with the whole statement, and a long one
would leave nothing of what the database said."""

TIMEOUTS = (
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
)
"""What could end the transaction that holds the lock, or the wait for it. The last one is new in Postgres 17."""

USERS = """
    SELECT to_regclass('alembic_version_auth') IS NOT NULL
        OR to_regclass('users') IS NOT NULL AND to_regclass('experiment_permissions') IS NOT NULL
"""
"""Whether a server with MLflow's basic-auth has kept its users here; before 3.6 without a revision of their own."""

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]


def first_tables():
    """Those that MLflow had before it had migrations: releases up to 2.22 at least take them for granted."""
    engine = create_engine(uri)
    Base.metadata.create_all(engine)
    engine.dispose()


def tables_of_users():
    """`mlflow db upgrade` leaves them to the servers, of which all but one die when several start at once."""
    try:
        from mlflow.server.auth.db import utils
    except ImportError as error:
        print(f"the tables of users stay as they are, for this image has no basic-auth: {error}", flush=True)
        return
    if not hasattr(utils, "_is_legacy_database"):
        # before 3.6 it would take the revision of all other tables for theirs
        print(
            "the tables of users stay as they are, for this MLflow does not count them by themselves",
            flush=True,
        )
        return
    engine = create_engine(uri)
    utils.migrate(engine, "head")
    engine.dispose()


# SQLAlchemy names a driver in the scheme, libpq knows none
with closing(psycopg2.connect("postgresql://" + uri.partition("://")[2])) as session:
    # a stricter level, which may be the role's default, would show the tables as they were before
    session.set_session(isolation_level="READ COMMITTED")
    asked = session.cursor()
    asked.execute(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY(%s)", [list(TIMEOUTS)]
    )
    print("waiting for the migration lock", flush=True)
    asked.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    print("migrating", flush=True)
    asked.execute("SELECT to_regclass('alembic_version')")
    empty = asked.fetchone()[0] is None
    try:
        asked.execute(USERS)
        if asked.fetchone()[0]:
            # first: where it fails nothing has moved that the servers of before read
            tables_of_users()
        if empty:
            first_tables()
        commands(["upgrade", uri], standalone_mode=False)
    except Exception as error:
        traceback.print_exc()
        if len(str(error)) > KEPT:
            print(getattr(error, "orig", None) or str(error)[:KEPT], file=sys.stderr)
        sys.exit(1)
    asked.execute("SELECT version_num FROM alembic_version")
    revision = asked.fetchone()
    session.commit()
print(f"schema is at {revision[0]}", flush=True)
sys.exit(0)
