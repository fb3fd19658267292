"""Asks this image, in the environment that its server will have, whether it can take over. Changes nothing.

The answer goes where Kubernetes keeps a container's last words, as JSON below 3 KiB. Every question is asked, whatever
came of those before it; what is at fault is listed, in the order in which it was found.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import closing

LAST_WORDS = "/dev/termination-log"
LIMIT = 3000
"""Bytes; Kubernetes keeps 4096 of a container, and 12 KiB of a pod."""

SECONDS = 300
"""For all of it. Clients of stores and databases have time-outs of their own, but try again and again."""

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")
TABLES = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace AND relname = ANY(%s) AND ({})
"""

found = {"version": None, "revision": None, "head": None, "movement": None, "steps": None, "faults": []}
uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
scheme, _, rest = uri.partition("://")
destination = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "")


def fault(kind, said):
    said = " ".join(str(said).split())[:300]
    print(f"{kind}: {said}", flush=True)
    found["faults"].append({"kind": kind, "said": said})


def answer():
    text = json.dumps(found)
    while len(text) > LIMIT:
        found["faults"].pop()
        text = json.dumps(found)
    with open(LAST_WORDS, "w") as words:
        words.write(text)
    print(text, flush=True)


def too_long():
    fault("time", f"not done within {SECONDS} s")
    answer()
    os._exit(1)


def program():
    """What the server's container is started with, and what that imports."""
    if shutil.which("mlflow") is None:
        fault("program", "mlflow")
    import mlflow

    found["version"] = str(mlflow.__version__)
    import mlflow.server


def drivers():
    wanted = [scheme.partition("+")[2] or "psycopg2", "psycopg2"]
    if destination.startswith("s3:"):
        wanted.append("boto3")
    for name in dict.fromkeys(wanted):
        try:
            __import__(name)
        except ImportError as error:
            fault("driver", f"{name} ({error})")


def known():
    """The revisions that this MLflow's migrations lead through."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    return ScriptDirectory(os.path.join(os.path.dirname(mlflow.store.__file__), "db_migrations"))


def database():
    import psycopg2

    # SQLAlchemy names a driver in the scheme, libpq knows none
    with closing(psycopg2.connect("postgresql://" + rest, connect_timeout=10)) as session:
        asked = session.cursor()

        def one(question, values=None):
            asked.execute(question, values)
            return asked.fetchone()[0]

        encoding = one("SHOW server_encoding")
        if encoding.upper() != "UTF8":
            fault("encoding", encoding)
        if one("SHOW transaction_read_only") != "off":
            fault("read-only", "transaction_read_only is on")
        count = 0
        if one("SELECT to_regclass('alembic_version')::text"):
            # the greatest, as the operator reads it; MLflow's own is the only one
            found["revision"] = one("SELECT max(version_num) FROM alembic_version")
            count = one("SELECT count(*) FROM alembic_version")
        compare([found["revision"]] if count else [], count)
        privileges(one)


def compare(revisions, count):
    """How far this database is from what the image wants: none, forward, or unknown."""
    scripts = known()
    found["head"] = ",".join(sorted(scripts.get_heads()))
    # by whole names: alembic itself would take the beginning of one for it
    ours = {script.revision for script in scripts.walk_revisions()}
    if count == 1 and revisions == [found["head"]]:
        found["movement"], found["steps"] = "none", 0
    elif count > 1 or not ours.issuperset(revisions):
        found["movement"] = "unknown"
    else:
        way = list(scripts.iterate_revisions("heads", revisions[0] if revisions else "base"))
        found["movement"], found["steps"] = "forward", len(way)


def tables():
    """The names of MLflow's tables."""
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.model_registry.dbmodels import models as registry  # noqa: F401
    from mlflow.store.tracking.dbmodels import models as tracking  # noqa: F401

    return [*Base.metadata.tables, "alembic_version"]


def privileges(one):
    """To write, always; to make and to change tables, where they are to move."""
    schema = one("SELECT current_schema()")
    if schema is None:
        fault("privilege", "none of the schemas in the user's search_path exists and may be used")
        return
    if found["movement"] == "forward":
        if not one("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            fault("privilege", f'the user may not CREATE in schema "{schema}"')
        foreign = one(TABLES.format("NOT pg_has_role(relowner, 'USAGE')"), [tables()])
        if foreign:
            fault("privilege", f"tables belong to another user: {foreign}")
    denied = " OR ".join(f"NOT has_table_privilege(oid, '{verb}')" for verb in VERBS)
    closed = one(TABLES.format(denied), [tables()])
    if closed:
        fault("privilege", f"the user may not read and write every table: {closed}")


def bucket():
    """A small file there and away again, by the very class that the server will use."""
    if not destination:
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(destination)
    # by one name each time: it stands in errors, and what is said twice must be the same
    path = os.path.join(tempfile.gettempdir(), "preflight")
    with open(path, "w") as file:
        file.write("written by a preflight; may be deleted\n")
    repository.log_artifact(path, ".mlflow-operator")
    try:
        repository.delete_artifacts(".mlflow-operator/preflight")
    except Exception as error:
        # one that may write and not delete is fit to serve; the next preflight writes over it
        print(f"left in the bucket: {error}", flush=True)


def main():
    watch = threading.Timer(SECONDS, too_long)
    watch.daemon = True
    watch.start()
    for kind, question in (
        ("driver", drivers),
        ("program", program),
        ("database", database),
        ("bucket", bucket),
    ):
        try:
            question()
        except Exception as error:
            fault(kind, f"{type(error).__name__}: {error}")
    watch.cancel()
    answer()
    sys.exit(1 if found["faults"] else 0)


main()
