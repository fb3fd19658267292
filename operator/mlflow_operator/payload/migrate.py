"""Brings the schema up to what this image's MLflow wants, alone.

A session lock keeps a second migration waiting, whoever started it. MLflow is called in this process, never as
a command: its arguments would show the password in the process list.
"""

import os
import sys

import psycopg
from mlflow.db import commands

LOCK = 0x6D6C666C6F77  # "mlflow"

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
with psycopg.connect(uri.replace("postgresql+psycopg://", "postgresql://", 1), autocommit=True) as session:
    print("waiting for the migration lock", flush=True)
    session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    print("migrating", flush=True)
    commands(["upgrade", uri], standalone_mode=False)
    revision = session.execute("SELECT version_num FROM alembic_version").fetchone()
print(f"schema is at {revision[0]}", flush=True)
sys.exit(0)
