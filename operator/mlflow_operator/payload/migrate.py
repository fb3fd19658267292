"""Brings the schema up to what this image's MLflow wants, alone.

A session lock keeps a second migration waiting, whoever started it. MLflow is called in this process, never as
a command: its arguments would show the password in the process list.
"""

import os
import sys
import traceback
from contextlib import closing

import psycopg2
from mlflow.db import commands

LOCK = 0x6D6C666C6F77  # "mlflow"
KEPT = 1500
"""Characters: of a pod's last words 2 KiB are kept. SQLAlchemy ends its errors with the whole statement, and a long one
would leave nothing of what the database said."""

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
# SQLAlchemy names a driver in the scheme, libpq knows none
with closing(psycopg2.connect("postgresql://" + uri.partition("://")[2])) as session:
    session.autocommit = True
    asked = session.cursor()
    print("waiting for the migration lock", flush=True)
    asked.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    print("migrating", flush=True)
    try:
        commands(["upgrade", uri], standalone_mode=False)
    except Exception as error:
        traceback.print_exc()
        if len(str(error)) > KEPT:
            print(getattr(error, "orig", None) or str(error)[:KEPT], file=sys.stderr)
        sys.exit(1)
    asked.execute("SELECT version_num FROM alembic_version")
    revision = asked.fetchone()
print(f"schema is at {revision[0]}", flush=True)
sys.exit(0)
