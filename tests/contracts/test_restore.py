"""A backup is put back whole or not at all: MLflow's image and Postgres' beside each other, on real stores."""

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.contracts.conftest import PINS
from tests.contracts.minio import ROOT, Store
from tests.contracts.postgres import Instance
from tests.contracts.test_preflight import EMPTY, HEAD, MLFLOW, run

POSTGRES = PINS["IMAGE_POSTGRES"]
PASSWORD = 'p@ss/w:rd?#[]&%2F+"$x\\'
QUOTED = "p%40ss%2Fw%3Ard%3F%23%5B%5D%26%252F%2B%22%24x%5C"
BUCKET, FOLDER = "backups", "company/mlflow-operator-backups/team/tracking"
ROWS = 40_000
NEWEST, OLDER = "20260102T020000Z-00000002", "20260101T020000Z-00000001"
IDENTITY = ("--user", "10001:10001", "--read-only", "--network", "host")


def as_kubelet(command: str) -> str:
    """A part of a command as it arrives in a container: two dollars are an escaped one."""
    return command.replace("$$", "$")


def make_database(instance: Instance, name: str) -> None:
    """With a role of its own, no superuser, whose password holds what means something somewhere."""
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(EMPTY.format(name))


def uri(instance: Instance, name: str) -> str:
    """As a server's pod is given it."""
    return f"postgresql+psycopg2://{name}:{QUOTED}@{instance.host}:{instance.port}/{name}?connect_timeout=10"


USERS = """
import os
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
users = SqlAlchemyStore()
users.init_db(os.environ["MLFLOW_BACKEND_STORE_URI"])
{}
"""
"""MLflow's own way to the users of its basic-auth, in the database that holds all else."""


def of_users(given: dict[str, str], program: str) -> str:
    """What MLflow says of its users, or does with them."""
    code, _, said = run(MLFLOW, USERS.format(program), given)
    assert code == 0, said
    return said.strip().rpartition("\n")[2]


def rows(instance: Instance, name: str) -> list[tuple[Any, ...]]:
    """What tells one content from another."""
    counted = "SELECT count(*), md5(string_agg(value, ',' ORDER BY run_uuid, key)) FROM params"
    return instance.query(counted, database=name)


def tables(instance: Instance, name: str) -> int:
    """How many there are."""
    (found,) = instance.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database=name)
    return int(found[0])


@dataclass
class Backup:
    """One that lies in a store, as it was made."""

    dump: bytes
    content: list[tuple[Any, ...]]
    manifest: dict[str, Any] = field(default_factory=dict)

    def put(self, store: Store, identifier: str, dump: bytes | None = None, **changed: Any) -> None:
        """Stores it, with another dump or another manifest than its own where that is asked for."""
        manifest = self.manifest | {"id": identifier} | changed
        content = self.dump if dump is None else dump
        files = {"database.dump": content, "manifest.json": json.dumps(manifest).encode()}
        for name, content in files.items():
            store.client().put_object(Bucket=BUCKET, Key=f"{FOLDER}/{identifier}/{name}", Body=content)


@pytest.fixture(scope="module")
def backup(instance: Instance, store: Store) -> Backup:
    """Of a database with MLflow's tables and many rows, with text that means something to psql among them."""
    name = "was"
    make_database(instance, name)
    given = {"MLFLOW_BACKEND_STORE_URI": uri(instance, name)}
    code, _, said = run(MLFLOW, pod_scripts.MIGRATE, given)
    assert code == 0, said
    of_users(given, "users.create_user('scientist', 'a long password', is_admin=True)")
    instance.query("INSERT INTO runs (run_uuid, experiment_id) SELECT 'r', NULL", database=name)
    odd = r"E'\\.\nSET transaction_timeout = 0;\n\\q\n'' $$ ü'"
    made = f"SELECT 'r', 'k' || i, i || {odd} || md5(i::text) FROM generate_series(1, {ROWS}) AS i"  # noqa: S608
    instance.query(f"INSERT INTO params (run_uuid, key, value) {made}", database=name)
    # somebody's access to the old database is nobody's to the new one
    instance.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_monitor", database=name)
    dump = subprocess.run(
        ["docker", "run", "--rm", *IDENTITY, "-e", "PGPASSWORD", POSTGRES, "pg_dump", "-Fc", "-h", instance.host,
         "-p", str(instance.port), "-U", name, name],
        env={"PGPASSWORD": PASSWORD, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    store.client().create_bucket(Bucket=BUCKET)
    manifest = {
        "formatVersion": 1,
        "namespace": "team",
        "server": "tracking",
        "mlflowVersion": DEFAULT_VERSION,
        "schemaRevision": HEAD,
        "postgresVersion": "17.6",
        "sizeBytes": len(dump),
        "sha256": hashlib.sha256(dump).hexdigest(),
        "startTime": "2026-01-01T02:00:00Z",
        "completionTime": "2026-01-01T02:00:01Z",
    }
    return Backup(dump, rows(instance, name), manifest)


@dataclass(frozen=True)
class Ended:
    """How a pod did: its answer, and the other container's output."""

    code: int
    answer: dict[str, Any]
    said: str

    @property
    def kind(self) -> str:
        """Of the one fault."""
        (found,) = self.answer["faults"]
        return str(found["kind"])


@dataclass(frozen=True)
class Pod:
    """What Kubernetes makes of the Job: two containers with a folder between them."""

    instance: Instance
    store: Store
    name: str

    def run(self, *, second: str = pod_scripts.PG_RESTORE, **changed: str) -> Ended:
        """Runs it to its end."""
        given = {
            "MLFLOW_BACKEND_STORE_URI": uri(self.instance, self.name),
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": ROOT.id,
            "AWS_SECRET_ACCESS_KEY": ROOT.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "RESTORE_SOURCE": f"s3://{BUCKET}/company",
            "RESTORE_NAMESPACE": "team",
            "RESTORE_SERVER": "tracking",
            "RESTORE_BACKUP": "latest",
            "RESTORE_MARKER": "restored from {id}, asked for: 0123",
            "RESTORE_FOLDER": "/between",
            **changed,
        }
        with tempfile.TemporaryDirectory() as folder:
            between, words = Path(folder, "between"), Path(folder, "words")
            between.mkdir()
            words.touch()
            for path in (between, words):
                path.chmod(0o777)
            mounts = ("-v", f"{between}:/between", "-v", f"{words}:/dev/termination-log", "--tmpfs", "/tmp")
            env = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
            base = ("docker", "run", "--rm", *IDENTITY, *mounts)
            other = subprocess.Popen(
                [*base, "-e", "RESTORE_FOLDER=/between", POSTGRES, "sh", "-c", as_kubelet(second)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            code = subprocess.run(
                [*base, *env, "-e", "HOME=/tmp", MLFLOW, "python3", "-u", "-c", as_kubelet(pod_scripts.RESTORE)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            said = other.communicate(timeout=60)[0]
            print(code.stdout, said)
            assert PASSWORD not in code.stdout + said
            return Ended(code.returncode + other.returncode, json.loads(words.read_text()), said)

    @property
    def marker(self) -> str | None:
        """What stands at the restored tables."""
        asked = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"
        found: str | None = self.instance.query(asked, database=self.name)[0][0]
        return found


@pytest.fixture
def pod(instance: Instance, store: Store, backup: Backup, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """On an empty database and a store with one backup."""
    name = f"r{abs(hash(request.node.nodeid)) % 10**8}"
    make_database(instance, name)
    backup.put(store, NEWEST)
    yield Pod(instance, store, name)
    # its data is in memory, and there is not much of that
    instance.query(f"DROP DATABASE {name} WITH (FORCE)")
    for found in store.client().list_objects_v2(Bucket=BUCKET)["Contents"]:
        store.client().delete_object(Bucket=BUCKET, Key=found["Key"])


def test_the_newest_backup_is_put_back_whole(
    pod: Pod, backup: Backup, instance: Instance, store: Store
) -> None:
    """By a role that is no superuser and another one than before. What is no backup yet does not count."""
    backup.put(store, OLDER, b"of no use")
    store.client().put_object(
        Bucket=BUCKET, Key=f"{FOLDER}/20270101T000000Z-00000003/database.dump", Body=b""
    )
    ended = pod.run()
    assert ended.answer == {"backup": {"id": NEWEST, "schemaRevision": HEAD}, "faults": []}
    assert ended.code == 0, ended.said
    assert rows(instance, pod.name) == backup.content
    assert backup.content[0][0] == ROWS
    assert pod.marker == f"restored from {NEWEST}, asked for: 0123"
    owners = instance.query(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", database=pod.name
    )
    assert owners == [(pod.name,)]
    # a server of this version finds nothing to migrate
    assert run(MLFLOW, pod_scripts.MIGRATE, {"MLFLOW_BACKEND_STORE_URI": uri(instance, pod.name)})[0] == 0
    assert rows(instance, pod.name) == backup.content
    whose = {"MLFLOW_BACKEND_STORE_URI": uri(instance, pod.name)}
    known = (
        "print([users.authenticate_user('scientist', word) for word in ('a long password', 'another one')])"
    )
    assert of_users(whose, known) == "[True, False]"

    again = pod.run()
    assert again.kind == "tables", "a second restore would mix two histories"
    assert rows(instance, pod.name) == backup.content


Change = Callable[[Backup, Store], object]


def flipped(dump: bytes) -> bytes:
    """One bit near its end is another one."""
    place = len(dump) - 40
    return dump[:place] + bytes([dump[place] ^ 1]) + dump[place + 1 :]


RARE = pytest.mark.long_running(
    reason="two containers each; the cases damaged, cut-off, unknown-revision and bad-manifest check the same answers"
)


@pytest.mark.parametrize(
    ("kind", "change", "given"),
    [
        pytest.param("damaged", lambda b, s: b.put(s, NEWEST, flipped(b.dump)), {}, id="damaged"),
        pytest.param("damaged", lambda b, s: b.put(s, NEWEST, b.dump[:-1]), {}, id="too-short", marks=RARE),
        # whose manifest was made of what was cut off already
        pytest.param(
            "pg_restore",
            lambda b, s: b.put(
                s,
                NEWEST,
                b.dump[:-1],
                sizeBytes=len(b.dump) - 1,
                sha256=hashlib.sha256(b.dump[:-1]).hexdigest(),
            ),
            {},
            id="cut-off",
        ),
        pytest.param(
            "pg_restore",
            lambda b, s: b.put(s, NEWEST, schemaRevision=SCHEMA_HEADS["3.14.0"]),
            {},
            id="other-revision",
            marks=RARE,
        ),
        pytest.param(
            "newer", lambda b, s: b.put(s, NEWEST, schemaRevision="ffffffffffff"), {}, id="unknown-revision"
        ),
        pytest.param(
            "format", lambda b, s: b.put(s, NEWEST, formatVersion=2), {}, id="unknown-format", marks=RARE
        ),
        pytest.param(
            "format", lambda b, s: b.put(s, NEWEST, sha256="'; DROP TABLE x"), {}, id="bad-manifest"
        ),
        pytest.param("missing", lambda b, s: None, {"RESTORE_BACKUP": OLDER}, id="no-such-id"),
        pytest.param("missing", lambda b, s: None, {"RESTORE_SERVER": "other"}, id="no-backup", marks=RARE),
        pytest.param("store", lambda b, s: None, {"AWS_SECRET_ACCESS_KEY": "wrong"}, id="wrong-key"),
        # the second container takes the dump and ends without an answer
        pytest.param(
            "pg_restore",
            lambda b, s: None,
            {
                "second": "cd $RESTORE_FOLDER; until [ -e ready ]; do sleep 0.1; done; exec 3>outcome; sleep 1 <dump"
            },
            id="silent-death",
            marks=RARE,
        ),
    ],
)
def test_what_can_not_be_put_back_whole_leaves_nothing_behind(  # noqa: PLR0917
    pod: Pod, backup: Backup, store: Store, kind: str, change: Change, given: dict[str, str]
) -> None:
    """Each is told by its kind, and the database is as empty as before."""
    change(backup, store)
    ended = pod.run(**given)
    assert (ended.kind, ended.code > 0) == (kind, True), ended.answer
    assert tables(pod.instance, pod.name) == 0


def test_tables_that_come_while_it_runs_are_left_alone(pod: Pod, instance: Instance) -> None:
    """Looked for within the very transaction, for a server may have been started meanwhile."""
    made = pod_scripts.PG_RESTORE.replace(
        "cat begin.sql\n", 'echo "COMMIT; CREATE TABLE experiments (a int);"; cat begin.sql\n'
    )
    assert made != pod_scripts.PG_RESTORE
    ended = pod.run(second=made)
    assert ended.kind == "pg_restore"
    assert "holds tables already" in ended.said
    assert tables(instance, pod.name) == 1


def test_an_image_without_the_programs_is_told(pod: Pod) -> None:
    """`image` names any Postgres' one; somebody may name another."""
    ended = pod.run(
        second=pod_scripts.PG_RESTORE.replace("in pg_restore psql", "in pg_restore_of_nobody psql")
    )
    assert ended.kind == "pg_restore"
    assert "the image has no pg_restore_of_nobody" in ended.answer["faults"][0]["said"]
