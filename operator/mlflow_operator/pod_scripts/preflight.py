"""Check whether this image can serve in the environment of the server. Changes nothing.

The result is the termination message of the container, as JSON below 3 KiB. All checks run, even if earlier ones
failed; their errors are listed in the order in which they were found.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import closing

from database_common import libpq_uri
from network_common import when_network_ready

TERMINATION_LOG = "/dev/termination-log"
MAX_RESULT_BYTES = 3000
"""Kubernetes keeps 4096 bytes per container, and 12 KiB per pod."""

TIMEOUT_SECONDS = 300
"""For all checks. The clients of stores and databases have their own timeouts, but they retry."""

TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
TABLES_QUERY = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace AND relname = ANY(%s) AND ({})
"""

result = {"version": None, "revision": None, "head": None, "change": None, "steps": None, "errors": []}
database_uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
destination = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "")


def add_error(code, message):
    message = " ".join(str(message).split())[:300]
    print(f"{code}: {message}", flush=True)
    result["errors"].append({"code": code, "message": message})


def write_result():
    text = json.dumps(result)
    while len(text) > MAX_RESULT_BYTES:
        result["errors"].pop()
        text = json.dumps(result)
    with open(TERMINATION_LOG, "w") as file:
        file.write(text)
    print(text, flush=True)


def on_timeout():
    add_error("timeout", f"not complete within {TIMEOUT_SECONDS} s")
    write_result()
    os._exit(1)


def check_mlflow():
    """Check the command that starts the server, and what it imports."""
    if shutil.which("mlflow") is None:
        add_error("mlflow", "it has no command mlflow")
    import mlflow

    result["version"] = str(mlflow.__version__)
    import mlflow.server


def check_drivers():
    modules = [database_uri.partition("://")[0].partition("+")[2] or "psycopg2", "psycopg2"]
    if destination.startswith("s3:"):
        modules.append("boto3")
    for name in dict.fromkeys(modules):
        try:
            __import__(name)
        except ImportError as error:
            add_error("driver", f"{name} ({error})")


def migration_scripts():
    """The migrations of this MLflow version."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    return ScriptDirectory(os.path.join(os.path.dirname(mlflow.store.__file__), "db_migrations"))


def check_database():
    import psycopg2

    uri = libpq_uri(database_uri)
    with closing(when_network_ready(lambda: psycopg2.connect(uri, connect_timeout=10))) as session:
        cursor = session.cursor()

        def query_value(query, values=None):
            cursor.execute(query, values)
            return cursor.fetchone()[0]

        encoding = query_value("SHOW server_encoding")
        if encoding.upper() != "UTF8":
            add_error("encoding", encoding)
        if query_value("SHOW transaction_read_only") != "off":
            add_error("read-only", "transaction_read_only is on")
        count = 0
        if query_value("SELECT to_regclass('alembic_version')::text"):
            # the greatest, as the operator does; MLflow itself stores only one
            result["revision"] = query_value("SELECT max(version_num) FROM alembic_version")
            count = query_value("SELECT count(*) FROM alembic_version")
        compare_schema([result["revision"]] if count else [], count)
        check_privileges(query_value)


def compare_schema(revisions, count):
    """Determine the schema change that the image needs: none, forward, or unknown."""
    scripts = migration_scripts()
    result["head"] = ",".join(sorted(scripts.get_heads()))
    # compare complete names: alembic would also accept a prefix
    known = {script.revision for script in scripts.walk_revisions()}
    if count == 1 and revisions == [result["head"]]:
        result["change"], result["steps"] = "none", 0
    elif count > 1 or not known.issuperset(revisions):
        result["change"] = "unknown"
    else:
        steps = list(scripts.iterate_revisions("heads", revisions[0] if revisions else "base"))
        result["change"], result["steps"] = "forward", len(steps)


def mlflow_tables():
    """The names of MLflow's tables."""
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.model_registry.dbmodels import models as registry  # noqa: F401
    from mlflow.store.tracking.dbmodels import models as tracking  # noqa: F401

    return [*Base.metadata.tables, "alembic_version"]


def check_privileges(query_value):
    """Check the privileges to write to the tables, and to create and change them if a migration is needed."""
    schema = query_value("SELECT current_schema()")
    if schema is None:
        add_error("privilege", "no schema in the user's search_path exists and can be used")
        return
    if result["change"] == "forward":
        if not query_value("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            add_error("privilege", f'the user has no CREATE privilege on schema "{schema}"')
        foreign = query_value(TABLES_QUERY.format("NOT pg_has_role(relowner, 'USAGE')"), [mlflow_tables()])
        if foreign:
            add_error("privilege", f"tables belong to another user: {foreign}")
    missing = " OR ".join(f"NOT has_table_privilege(oid, '{privilege}')" for privilege in TABLE_PRIVILEGES)
    denied = query_value(TABLES_QUERY.format(missing), [mlflow_tables()])
    if denied:
        add_error("privilege", f"the user cannot read and write these tables: {denied}")


def check_bucket():
    """Write and delete a small file, with the class that the server will use."""
    if not destination:
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(destination)
    # always the same name: it is part of error messages, and the same error must have the same message
    path = os.path.join(tempfile.gettempdir(), "preflight")
    with open(path, "w") as file:
        file.write("written by a preflight of mlflow-operator; may be deleted\n")
    repository.log_artifact(path, ".mlflow-operator")
    try:
        repository.delete_artifacts(".mlflow-operator/preflight")
    except Exception as error:
        # a server can work without the permission to delete; the next preflight overwrites the file
        print(f"the file is left in the bucket: {error}", flush=True)


def main():
    timer = threading.Timer(TIMEOUT_SECONDS, on_timeout)
    timer.daemon = True
    timer.start()
    for code, check in (
        ("driver", check_drivers),
        ("mlflow", check_mlflow),
        ("database", check_database),
        ("bucket", check_bucket),
    ):
        try:
            check()
        except Exception as error:
            add_error(code, f"{type(error).__name__}: {error}")
    timer.cancel()
    write_result()
    sys.exit(1 if result["errors"] else 0)


main()
