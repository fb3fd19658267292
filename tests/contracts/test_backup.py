"""Backups by the very two containers of their pod, from a real Postgres to a real MinIO."""

import hashlib
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.components.backup import result as backup_answer
from mlflow_operator.components.backup.result import BackupResult
from tests.cluster import settings
from tests.contracts.minio import ROOT, Store
from tests.contracts.postgres import Instance

PINS = settings.read_pins(settings.ROOT / "versions.env")
PASSWORD = "p@ss:w\\rd #[]'\" "
QUOTED = quote(PASSWORD, safe="")
FOLDER = "team/mlflow-operator-backups/ns/tracking/"
WITHIN = 60.0
MIB = 1024 * 1024


@dataclass
class Pod:
    """One that backs up the database `name` to the bucket of the same name."""

    instance: Instance
    store: Store
    name: str
    changed: dict[str, str] = field(default_factory=dict)
    image: str = PINS["IMAGE_POSTGRES"]

    @property
    def environment(self) -> dict[str, str]:
        """What the container that stores is given."""
        return {
            "MLFLOW_BACKEND_STORE_URI": (
                f"postgresql+psycopg2://{self.name}:{QUOTED}@{self.instance.host}:{self.instance.port}/{self.name}"
            ),
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": ROOT.id,
            "AWS_SECRET_ACCESS_KEY": ROOT.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
            "BACKUP_FOLDER": "/exchange",
            "BACKUP_DESTINATION": f"s3://{self.name}/team",
            "BACKUP_NAMESPACE": "ns",
            "BACKUP_SERVER": "tracking",
            "BACKUP_MAX_COUNT": "14",
            "BACKUP_MAX_AGE_SECONDS": "2592000",
            **self.changed,
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """As the superuser."""
        return self.instance.query(sql, database=self.name)

    def files(self) -> set[str]:
        """What is in the folder of the server's backups."""
        found = self.store.client().list_objects_v2(Bucket=self.name, Prefix=FOLDER)
        return {each["Key"].removeprefix(FOLDER) for each in found.get("Contents", ())}

    def content(self, path: str) -> bytes:
        """Of a file there."""
        return self.store.client().get_object(Bucket=self.name, Key=FOLDER + path)["Body"].read()

    def put(self, path: str, content: bytes = b"old") -> None:
        """A file there, as an earlier backup might have left it."""
        self.store.client().put_object(Bucket=self.name, Key=FOLDER + path, Body=content)

    def run(self) -> tuple[int, BackupResult | None, str]:
        """Exit code, answer and output."""
        with self.running() as (container, words, _):
            code = int(_docker("wait", container))
            return code, backup_answer.parse(words.read_text()), _docker("logs", container)

    def backed_up(self) -> backup_answer.CompletedBackup:
        """A good backup."""
        code, answer, said = self.run()
        assert code == 0, said
        assert answer, said
        assert answer.backup, said
        return answer.backup

    def fails(self) -> tuple[str, str]:
        """Kind and words of the fault that keeps it from being made."""
        code, answer, said = self.run()
        assert code == 1, said
        assert answer, said
        assert answer.backup is None, said
        return answer.faults[0].kind, answer.faults[0].said

    @contextmanager
    def running(self) -> Iterator[tuple[str, Path, str]]:
        """Both containers; gives the one that stores, the file of its last words, and the other."""
        with tempfile.TemporaryDirectory() as folder:
            words, exchange = Path(folder, "words"), Path(folder, "exchange")
            words.touch()
            words.chmod(0o666)
            exchange.mkdir()
            exchange.chmod(0o777)
            shared = ("--network", "host", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp",
                      "-e", "HOME=/tmp", "-v", f"{exchange}:/exchange")  # fmt: skip
            given = [part for name, value in self.environment.items() for part in ("-e", f"{name}={value}")]
            made = [
                _docker("run", "-d", *shared, *given, "-v", f"{words}:/dev/termination-log",
                        PINS["IMAGE_MLFLOW"], "python3", "-u", "-c", pod_scripts.BACKUP),
                _docker("run", "-d", *shared, "-e", "BACKUP_FOLDER=/exchange", self.image,
                        "sh", "-c", pod_scripts.PG_DUMP),
            ]  # fmt: skip
            try:
                yield made[0], words, made[1]
            finally:
                for each in reversed(made):
                    _docker("rm", "-f", each)


def _docker(*argv: str) -> str:
    done = subprocess.run(
        ("docker", *argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


@pytest.fixture
def pod(instance: Instance, store: Store, request: pytest.FixtureRequest) -> Pod:
    """A database with a table of MLflow's, and a bucket, of the test's own."""
    name = f"b{secrets.token_hex(4)}"
    quoted = PASSWORD.replace("'", "''")
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}'")
    instance.query(f"CREATE DATABASE {name} OWNER {name} ENCODING 'UTF8' TEMPLATE template0")
    store.client().create_bucket(Bucket=name)
    found = Pod(instance, store, name)
    found.query("CREATE TABLE alembic_version (version_num text)")
    found.query("INSERT INTO alembic_version VALUES ('dc11669786a5')")
    found.query(f"ALTER TABLE alembic_version OWNER TO {name}")
    return found


def large(pod: Pod, mebibytes: int) -> None:
    """A table that no compression makes smaller."""
    rows = f"FROM generate_series(1, {mebibytes * MIB // 42}) AS n"
    pod.query("CREATE UNLOGGED TABLE filler AS SELECT gen_random_uuid() AS a, gen_random_uuid() AS b " + rows)
    pod.query(f"ALTER TABLE filler OWNER TO {pod.name}")


def test_a_backup_is_whole_and_says_what_it_is(pod: Pod) -> None:
    """In several parts; the manifest beside it tells size and checksum, and pg_restore takes what is stored."""
    large(pod, 40)
    made = pod.backed_up()
    assert made.uri == f"s3://{pod.name}/{FOLDER}{made.id}"
    assert pod.files() == {f"{made.id}/database.dump", f"{made.id}/manifest.json"}
    dump = pod.content(f"{made.id}/database.dump")
    manifest = json.loads(pod.content(f"{made.id}/manifest.json"))
    assert len(dump) > 16 * MIB
    assert manifest.pop("sha256") == hashlib.sha256(dump).hexdigest()
    assert manifest.pop("postgresVersion").startswith("17.")
    assert manifest.pop("startTime") <= manifest["completionTime"]
    assert manifest == {
        "formatVersion": 1,
        "id": made.id,
        "namespace": "ns",
        "server": "tracking",
        "mlflowVersion": "3.17.2",
        "schemaRevision": "dc11669786a5",
        "sizeBytes": len(dump),
        "completionTime": made.completion_time,
    }
    told = subprocess.run(
        ("docker", "run", "--rm", "-i", PINS["IMAGE_POSTGRES"], "pg_restore", "--list"),
        input=dump, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert b"TABLE DATA public filler" in told.stdout


def test_old_backups_go_and_the_newest_never(pod: Pod) -> None:
    """By number and by age; a dump without its manifest, and what is no backup of ours, are other matters."""
    today = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 3600))
    ids = ["20200101T000000Z-00000001", "20200101T000000Z-00000002", f"{today}-00000003", f"{today}-00000004"]
    for each in ids:
        pod.put(f"{each}/database.dump")
        pod.put(f"{each}/manifest.json")
    pod.put("20200101T000000Z-00000009/database.dump")
    pod.put(f"{today}-00000009/database.dump")
    pod.put("notes.txt")
    pod.changed = {"BACKUP_MAX_COUNT": "2"}
    made = pod.backed_up()
    assert {path.partition("/")[0] for path in pod.files()} == {
        made.id,
        ids[3],
        f"{today}-00000009",
        "notes.txt",
    }
    pod.changed = {"BACKUP_MAX_AGE_SECONDS": "0"}
    made = pod.backed_up()
    assert {path.partition("/")[0] for path in pod.files()} == {made.id, f"{today}-00000009", "notes.txt"}


def test_a_backup_that_is_killed_leaves_nothing_that_looks_whole(pod: Pod) -> None:
    """Asked to end it takes back what it stored, too, and says so. While it ran, neither a list of processes nor the
    environment of pg_dump's container told the password."""
    large(pod, 120)
    with pod.running() as (container, words, dumps):
        deadline = time.monotonic() + WITHIN
        while not _uploads(pod):
            assert time.monotonic() < deadline, _docker("logs", container)
            time.sleep(0.02)
        _docker("pause", dumps)  # or, on a busy machine, the backup ends before all of this is looked at
        shown = _docker("top", container) + _docker("top", dumps) + _docker("inspect", dumps)
        assert "pg_dump" in shown
        assert QUOTED not in shown
        assert PASSWORD.split(maxsplit=1)[0] not in shown
        _docker("kill", "-s", "TERM", container)
        assert int(_docker("wait", container)) == 1
        _docker("unpause", dumps)
        answer = backup_answer.parse(words.read_text())
    assert answer
    assert answer.faults[0].kind == "interrupted"
    assert not pod.files()
    assert not _uploads(pod)


def _uploads(pod: Pod) -> list[Any]:
    """Those that are under way, as MinIO keeps them: it lists only those of a whole key."""
    listed = _docker("exec", pod.store.container, "sh", "-c", "find /data/.minio.sys/multipart -name xl.meta")
    return listed.splitlines()


def test_a_database_without_tables_is_no_backup(pod: Pod) -> None:
    """An empty dump would push a good one out."""
    pod.query("DROP TABLE alembic_version")
    assert pod.fails()[0] == "empty"
    assert not pod.files()


def test_what_pg_dump_says_is_told(pod: Pod) -> None:
    """A table that its user may not read, as an owner's own mistake makes it."""
    pod.query("CREATE TABLE secret AS SELECT 1 AS n")
    kind, said = pod.fails()
    assert kind == "pg_dump"
    assert "permission denied for table secret" in said
    assert not pod.files()


def test_an_image_without_pg_dump_is_told(pod: Pod) -> None:
    """At once, and not when somebody has waited long enough."""
    pod.image = PINS["IMAGE_BUSYBOX"]
    assert pod.fails() == ("pg_dump", "the image has no pg_dump")
    assert not pod.files()


RARE = pytest.mark.long_running(
    reason="two containers each; the case of SignatureDoesNotMatch checks the answer to another error of the store"
)


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "store", "SignatureDoesNotMatch"),
        pytest.param({"BACKUP_DESTINATION": "s3://nobodys"}, "store", "NoSuchBucket", marks=RARE),
        pytest.param(
            {"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "store", "Could not connect", marks=RARE
        ),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql://u:p@127.0.0.1:9/db"}, "database", "refused"),
    ],
)
def test_what_is_out_of_reach_is_told(pod: Pod, changed: dict[str, str], kind: str, said: str) -> None:
    """The store and the database, each in the words of whoever refuses."""
    pod.changed = changed
    found = pod.fails()
    assert found[0] == kind
    assert said in found[1]
