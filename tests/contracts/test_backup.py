"""Backups of a real Postgres to a real MinIO, made by the two containers of a backup pod."""

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
from mlflow_operator.components.backup import result as backup_result
from mlflow_operator.components.backup.result import BackupResult
from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.cluster import settings
from tests.contracts.minio import ROOT_KEY, Store
from tests.contracts.postgres import Instance

PINS = settings.read_pins(settings.ROOT / "versions.env")
PASSWORD = "p@ss:w\\rd #[]'\" "
URL_ENCODED_PASSWORD = quote(PASSWORD, safe="")
BACKUP_PREFIX = "team/mlflow-operator-backups/ns/tracking/"
UPLOAD_TIMEOUT_SECONDS = 60.0
MIB = 1024 * 1024


@dataclass
class Pod:
    """A backup pod that backs up the database `name` to the bucket of the same name."""

    instance: Instance
    store: Store
    name: str
    env_changes: dict[str, str] = field(default_factory=dict)
    image: str = PINS["IMAGE_POSTGRES"]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the container that uploads the backup."""
        return {
            "MLFLOW_BACKEND_STORE_URI": (
                f"postgresql+psycopg2://{self.name}:{URL_ENCODED_PASSWORD}@{self.instance.host}:{self.instance.port}/{self.name}"
            ),
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": ROOT_KEY.id,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
            "BACKUP_FOLDER": "/exchange",
            "BACKUP_DESTINATION": f"s3://{self.name}/team",
            "BACKUP_NAMESPACE": "ns",
            "BACKUP_SERVER": "tracking",
            "BACKUP_MAX_COUNT": "14",
            "BACKUP_MAX_AGE_SECONDS": "2592000",
            **self.env_changes,
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute a statement as superuser."""
        return self.instance.query(sql, database=self.name)

    def object_keys(self) -> set[str]:
        """Keys of the objects under the prefix of the server's backups."""
        listed = self.store.client().list_objects_v2(Bucket=self.name, Prefix=BACKUP_PREFIX)
        return {entry["Key"].removeprefix(BACKUP_PREFIX) for entry in listed.get("Contents", ())}

    def content(self, path: str) -> bytes:
        """The content of an object under that prefix."""
        return self.store.client().get_object(Bucket=self.name, Key=BACKUP_PREFIX + path)["Body"].read()

    def put(self, path: str, content: bytes = b"old") -> None:
        """Create an object there, as of a previous backup."""
        self.store.client().put_object(Bucket=self.name, Key=BACKUP_PREFIX + path, Body=content)

    def run(self) -> tuple[int, BackupResult | None, str]:
        """Run the pod; return the exit code, the result and the output of the uploading container."""
        with self.run_containers() as (container, termination_message, _):
            code = int(_docker("wait", container))
            return code, backup_result.parse(termination_message.read_text()), _docker("logs", container)

    def run_successfully(self) -> backup_result.CompletedBackup:
        """Run the pod, which must succeed; return the backup."""
        code, result, output = self.run()
        assert code == 0, output
        assert result, output
        assert result.backup, output
        return result.backup

    def run_failing(self) -> tuple[str, str]:
        """Run the pod, which must fail; return code and message of the first error."""
        code, result, output = self.run()
        assert code == 1, output
        assert result, output
        assert result.backup is None, output
        return result.errors[0].code, result.errors[0].message

    @contextmanager
    def run_containers(self) -> Iterator[tuple[str, Path, str]]:
        """Run both containers; yield the uploading one, the file of its termination message, and the dumping one."""
        with tempfile.TemporaryDirectory() as folder:
            termination_message, exchange = Path(folder, "termination-message"), Path(folder, "exchange")
            termination_message.touch()
            termination_message.chmod(0o666)
            exchange.mkdir()
            exchange.chmod(0o777)
            options = ("--network", "host", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp",
                      "-e", "HOME=/tmp", "-v", f"{exchange}:/exchange")  # fmt: skip
            env = [part for name, value in self.environment.items() for part in ("-e", f"{name}={value}")]
            containers = [
                _docker("run", "-d", *options, *env, "-v", f"{termination_message}:/dev/termination-log",
                        PINS["IMAGE_MLFLOW"], "python3", "-u", "-c", pod_scripts.BACKUP),
                _docker("run", "-d", *options, "-e", "BACKUP_FOLDER=/exchange", self.image,
                        "sh", "-c", pod_scripts.PG_DUMP),
            ]  # fmt: skip
            try:
                yield containers[0], termination_message, containers[1]
            finally:
                for container in reversed(containers):
                    _docker("rm", "-f", container)


def _docker(*argv: str) -> str:
    process = subprocess.run(
        ("docker", *argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert process.returncode == 0, process.stdout
    return process.stdout.strip()


@pytest.fixture
def pod(instance: Instance, store: Store, request: pytest.FixtureRequest) -> Pod:
    """A pod with a new bucket and a new database that has a table of MLflow."""
    name = f"b{secrets.token_hex(4)}"
    escaped_password = PASSWORD.replace("'", "''")
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{escaped_password}'")
    instance.query(f"CREATE DATABASE {name} OWNER {name} ENCODING 'UTF8' TEMPLATE template0")
    store.client().create_bucket(Bucket=name)
    pod = Pod(instance, store, name)
    pod.query("CREATE TABLE alembic_version (version_num text)")
    pod.query("INSERT INTO alembic_version VALUES ('dc11669786a5')")
    pod.query(f"ALTER TABLE alembic_version OWNER TO {name}")
    return pod


def add_table(pod: Pod, mebibytes: int) -> None:
    """Add a table with incompressible data to the database."""
    rows = f"FROM generate_series(1, {mebibytes * MIB // 42}) AS n"
    pod.query("CREATE UNLOGGED TABLE spans AS SELECT gen_random_uuid() AS a, gen_random_uuid() AS b " + rows)
    pod.query(f"ALTER TABLE spans OWNER TO {pod.name}")


def test_backup_is_complete_and_has_a_manifest(pod: Pod) -> None:
    """The dump is uploaded in several parts, the manifest has its size and checksum, and pg_restore can read it."""
    add_table(pod, 40)
    backup = pod.run_successfully()
    assert backup.uri == f"s3://{pod.name}/{BACKUP_PREFIX}{backup.id}"
    assert pod.object_keys() == {f"{backup.id}/database.dump", f"{backup.id}/manifest.json"}
    dump = pod.content(f"{backup.id}/database.dump")
    manifest = json.loads(pod.content(f"{backup.id}/manifest.json"))
    assert len(dump) > 16 * MIB
    assert manifest.pop("sha256") == hashlib.sha256(dump).hexdigest()
    assert manifest.pop("postgresVersion").startswith("17.")
    assert manifest.pop("startTime") <= manifest["completionTime"]
    assert manifest == {
        "formatVersion": 2,
        "id": backup.id,
        "namespace": "ns",
        "server": "tracking",
        "mlflowVersion": DEFAULT_VERSION,
        "schemaRevision": "dc11669786a5",
        "databaseSchema": "public",
        "tables": ["alembic_version", "spans"],
        "functions": [],
        "encryption": {"passphrases": {}, "webhookKey": None},
        "sizeBytes": len(dump),
        "completionTime": backup.completion_time,
    }
    listing = subprocess.run(
        ("docker", "run", "--rm", "-i", PINS["IMAGE_POSTGRES"], "pg_restore", "--list"),
        input=dump, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert b"TABLE DATA public spans" in listing.stdout


def test_old_backups_are_deleted_except_the_newest(pod: Pod) -> None:
    """By count and by age. Unfinished backups are deleted only by age, and other objects are not deleted."""
    today = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 3600))
    ids = ["20200101T000000Z-00000001", "20200101T000000Z-00000002", f"{today}-00000003", f"{today}-00000004"]
    for backup_id in ids:
        pod.put(f"{backup_id}/database.dump")
        pod.put(f"{backup_id}/manifest.json")
    pod.put("20200101T000000Z-00000009/database.dump")
    pod.put(f"{today}-00000009/database.dump")
    pod.put("notes.txt")
    pod.env_changes = {"BACKUP_MAX_COUNT": "2"}
    backup = pod.run_successfully()
    assert {path.partition("/")[0] for path in pod.object_keys()} == {
        backup.id,
        ids[3],
        f"{today}-00000009",
        "notes.txt",
    }
    pod.env_changes = {"BACKUP_MAX_AGE_SECONDS": "0"}
    backup = pod.run_successfully()
    assert {path.partition("/")[0] for path in pod.object_keys()} == {
        backup.id,
        f"{today}-00000009",
        "notes.txt",
    }


def test_interrupted_backup_leaves_no_objects(pod: Pod) -> None:
    """After SIGTERM it deletes what it uploaded, and reports the interruption.

    While it runs, neither the process list nor the environment of the dumping container contains the password.
    """
    add_table(pod, 120)
    with pod.run_containers() as (container, termination_message, dump_container):
        deadline = time.monotonic() + UPLOAD_TIMEOUT_SECONDS
        while not _unfinished_uploads(pod):
            assert time.monotonic() < deadline, _docker("logs", container)
            time.sleep(0.02)
        # Otherwise, on a busy machine, the backup may end before the checks.
        _docker("pause", dump_container)
        processes = _docker("top", container) + _docker("top", dump_container)
        visible = processes + _docker("inspect", dump_container)
        assert "pg_dump" in visible
        assert URL_ENCODED_PASSWORD not in visible
        assert PASSWORD.split(maxsplit=1)[0] not in visible
        _docker("kill", "-s", "TERM", container)
        assert int(_docker("wait", container)) == 1
        _docker("unpause", dump_container)
        result = backup_result.parse(termination_message.read_text())
    assert result
    assert result.errors[0].code == "interrupted"
    assert not pod.object_keys()
    assert not _unfinished_uploads(pod)


def _unfinished_uploads(pod: Pod) -> list[Any]:
    """Unfinished uploads on MinIO's disk: its API lists them only for a complete key."""
    listed = _docker("exec", pod.store.container, "sh", "-c", "find /data/.minio.sys/multipart -name xl.meta")
    return listed.splitlines()


def test_backup_of_empty_database_fails(pod: Pod) -> None:
    """Otherwise an empty backup would replace a good one."""
    pod.query("DROP TABLE alembic_version")
    assert pod.run_failing()[0] == "no_tables"
    assert not pod.object_keys()


def test_error_of_pg_dump_is_reported(pod: Pod) -> None:
    """For example a table that the user may not read."""
    pod.query("CREATE TABLE runs AS SELECT 1 AS n")
    code, message = pod.run_failing()
    assert code == "pg_dump"
    assert "permission denied for table runs" in message
    assert not pod.object_keys()


def test_image_without_pg_dump_is_reported(pod: Pod) -> None:
    """Immediately, not after a timeout."""
    pod.image = PINS["IMAGE_BUSYBOX"]
    assert pod.run_failing() == ("pg_dump", "the image has no pg_dump")
    assert not pod.object_keys()


LONG_RUNNING = pytest.mark.long_running(
    reason="two containers each; the case SignatureDoesNotMatch covers errors of the store"
)


@pytest.mark.parametrize(
    ("env_changes", "code", "fragment"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "store", "SignatureDoesNotMatch"),
        pytest.param({"BACKUP_DESTINATION": "s3://missing"}, "store", "NoSuchBucket", marks=LONG_RUNNING),
        pytest.param(
            {"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "store", "Could not connect", marks=LONG_RUNNING
        ),
        ({"MLFLOW_BACKEND_STORE_URI": "postgresql://u:p@127.0.0.1:9/db"}, "database", "refused"),
    ],
)
def test_unreachable_store_or_database_is_reported(
    pod: Pod, env_changes: dict[str, str], code: str, fragment: str
) -> None:
    """With the text of the store's or the database's error."""
    pod.env_changes = env_changes
    error_code, message = pod.run_failing()
    assert error_code == code
    assert fragment in message
