"""Restores are all or nothing. MLflow's and Postgres' images run as in a restore pod, with real stores."""

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
from mlflow_operator.components.restore.manifests import source_backup_id
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.contracts.conftest import PINS
from tests.contracts.minio import ROOT_KEY, Store
from tests.contracts.postgres import Instance
from tests.contracts.test_preflight import CREATE_DATABASE, HEAD, MLFLOW, run

POSTGRES = PINS["IMAGE_POSTGRES"]
PASSWORD = 'p@ss/w:rd?#[]&%2F+"$x\\'
URL_ENCODED_PASSWORD = "p%40ss%2Fw%3Ard%3F%23%5B%5D%26%252F%2B%22%24x%5C"
BUCKET, BACKUP_PREFIX = "backups", "company/mlflow-operator-backups/team/tracking"
ROW_COUNT = 40_000
NEWEST_ID, OLDER_ID = "20260102T020000Z-00000002", "20260101T020000Z-00000001"
DOCKER_OPTIONS = ("--user", "10001:10001", "--read-only", "--network", "host")


def unescape_dollars(command: str) -> str:
    """A part of a container's command as the kubelet passes it on: `$$` is an escaped dollar."""
    return command.replace("$$", "$")


def create_database(instance: Instance, name: str) -> None:
    """Create a database and its owner, who is no superuser and whose password contains characters to escape."""
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(CREATE_DATABASE.format(name))


def uri(instance: Instance, name: str) -> str:
    """The URI as in the environment of a server's pod."""
    return f"postgresql+psycopg2://{name}:{URL_ENCODED_PASSWORD}@{instance.host}:{instance.port}/{name}?connect_timeout=10"


USERS_SCRIPT = """
import os
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
users = SqlAlchemyStore()
users.init_db(os.environ["MLFLOW_BACKEND_STORE_URI"])
{}
"""
"""Opens the users of MLflow's basic-auth, which are in the same database."""


def run_users_script(environment: dict[str, str], program: str) -> str:
    """Run a program that can use `users`; return the last line of its output."""
    code, _, output = run(MLFLOW, USERS_SCRIPT.format(program), environment)
    assert code == 0, output
    return output.strip().rpartition("\n")[2]


def params_digest(instance: Instance, name: str) -> list[tuple[Any, ...]]:
    """Count and hash of MLflow's parameters, to compare the contents of databases."""
    query = "SELECT count(*), md5(string_agg(value, ',' ORDER BY run_uuid, key)) FROM params"
    return instance.query(query, database=name)


def table_count(instance: Instance, name: str) -> int:
    """The number of tables."""
    (row,) = instance.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database=name)
    return int(row[0])


@dataclass
class Backup:
    """A backup: the dump, the digest of the database's content, and the manifest."""

    dump: bytes
    content: list[tuple[Any, ...]]
    manifest: dict[str, Any] = field(default_factory=dict)

    def put(self, store: Store, identifier: str, dump: bytes | None = None, **manifest_changes: Any) -> None:
        """Store the backup, optionally with another dump or a changed manifest."""
        manifest = self.manifest | {"id": identifier} | manifest_changes
        content = self.dump if dump is None else dump
        objects = {"database.dump": content, "manifest.json": json.dumps(manifest).encode()}
        for name, content in objects.items():
            store.client().put_object(Bucket=BUCKET, Key=f"{BACKUP_PREFIX}/{identifier}/{name}", Body=content)


@pytest.fixture(scope="module")
def backup(instance: Instance, store: Store) -> Backup:
    """A backup of a database with MLflow's tables and many rows. Some of the text has a meaning in psql."""
    name = "original"
    create_database(instance, name)
    environment = {"MLFLOW_BACKEND_STORE_URI": uri(instance, name)}
    code, _, output = run(MLFLOW, pod_scripts.MIGRATE, environment)
    assert code == 0, output
    run_users_script(environment, "users.create_user('scientist', 'a long password', is_admin=True)")
    instance.query("INSERT INTO runs (run_uuid, experiment_id) SELECT 'r', NULL", database=name)
    psql_syntax = r"E'\\.\nSET transaction_timeout = 0;\n\\q\n'' $$ ü'"
    rows = (
        f"SELECT 'r', 'k' || i, i || {psql_syntax} || md5(i::text) FROM generate_series(1, {ROW_COUNT}) AS i"  # noqa: S608
    )
    instance.query(f"INSERT INTO params (run_uuid, key, value) {rows}", database=name)
    # Privileges of other roles in the original database must not be restored.
    instance.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_monitor", database=name)
    dump = subprocess.run(
        ["docker", "run", "--rm", *DOCKER_OPTIONS, "-e", "PGPASSWORD", POSTGRES, "pg_dump", "-Fc", "-h", instance.host,
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
        "encryption": {"passphrases": {"1": "public"}, "webhookKey": None},
    }
    return Backup(dump, params_digest(instance, name), manifest)


@dataclass(frozen=True)
class PodResult:
    """Exit codes of a pod (sum), its termination message, and the output of the container with pg_restore."""

    code: int
    termination_message: dict[str, Any]
    output: str

    @property
    def error_code(self) -> str:
        """The code of the only error."""
        (error,) = self.termination_message["errors"]
        return str(error["code"])


@dataclass(frozen=True)
class Pod:
    """The pod of a restore Job: two containers that share a folder."""

    instance: Instance
    store: Store
    name: str

    def run(self, *, pg_restore_script: str = pod_scripts.PG_RESTORE, **env_changes: str) -> PodResult:
        """Run both containers until they end."""
        environment = {
            "MLFLOW_BACKEND_STORE_URI": uri(self.instance, self.name),
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": ROOT_KEY.id,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "RESTORE_SOURCE": f"s3://{BUCKET}/company",
            "RESTORE_NAMESPACE": "team",
            "RESTORE_SERVER": "tracking",
            "RESTORE_BACKUP": "latest",
            "RESTORE_MARKER": "restored by mlflow-operator from backup {id}, request 0123",
            "RESTORE_FOLDER": "/exchange",
            **env_changes,
        }
        with tempfile.TemporaryDirectory() as folder:
            exchange, termination_message = Path(folder, "exchange"), Path(folder, "termination-message")
            exchange.mkdir()
            termination_message.touch()
            for path in (exchange, termination_message):
                path.chmod(0o777)
            mounts = (
                *("-v", f"{exchange}:/exchange", "-v", f"{termination_message}:/dev/termination-log"),
                *("--tmpfs", "/tmp"),
            )
            env = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
            command = ("docker", "run", "--rm", *DOCKER_OPTIONS, *mounts)
            pg_restore = subprocess.Popen(
                [*command, "-e", "RESTORE_FOLDER=/exchange", POSTGRES, "sh", "-c", unescape_dollars(pg_restore_script)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            download = subprocess.run(
                [*command, *env, "-e", "HOME=/tmp", MLFLOW, "python3", "-u", "-c",
                 unescape_dollars(pod_scripts.RESTORE)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            output = pg_restore.communicate(timeout=60)[0]
            print(download.stdout, output)
            assert PASSWORD not in download.stdout + output
            message = json.loads(termination_message.read_text())
            return PodResult(download.returncode + pg_restore.returncode, message, output)

    @property
    def marker(self) -> str | None:
        """The comment on the restored tables."""
        query = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"
        comment: str | None = self.instance.query(query, database=self.name)[0][0]
        return comment


@pytest.fixture
def pod(instance: Instance, store: Store, backup: Backup, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """A restore pod with an empty database and a store with one backup."""
    name = f"r{abs(hash(request.node.nodeid)) % 10**8}"
    create_database(instance, name)
    backup.put(store, NEWEST_ID)
    yield Pod(instance, store, name)
    # The database is in memory, which is limited.
    instance.query(f"DROP DATABASE {name} WITH (FORCE)")
    for entry in store.client().list_objects_v2(Bucket=BUCKET)["Contents"]:
        store.client().delete_object(Bucket=BUCKET, Key=entry["Key"])


def test_newest_backup_is_restored_completely(
    pod: Pod, backup: Backup, instance: Instance, store: Store
) -> None:
    """By another role than the original owner, which is no superuser. Unfinished backups are ignored."""
    backup.put(store, OLDER_ID, b"invalid")
    store.client().put_object(
        Bucket=BUCKET, Key=f"{BACKUP_PREFIX}/20270101T000000Z-00000003/database.dump", Body=b""
    )
    result = pod.run()
    assert result.termination_message == {"backup": {"id": NEWEST_ID, "schemaRevision": HEAD}, "errors": []}
    assert result.code == 0, result.output
    assert params_digest(instance, pod.name) == backup.content
    assert backup.content[0][0] == ROW_COUNT
    assert source_backup_id(pod.marker) == NEWEST_ID
    owners = instance.query(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", database=pod.name
    )
    assert owners == [(pod.name,)]
    # No migration is needed for a server of this version.
    assert run(MLFLOW, pod_scripts.MIGRATE, {"MLFLOW_BACKEND_STORE_URI": uri(instance, pod.name)})[0] == 0
    assert params_digest(instance, pod.name) == backup.content
    environment = {"MLFLOW_BACKEND_STORE_URI": uri(instance, pod.name)}
    authenticate = (
        "print([users.authenticate_user('scientist', p) for p in ('a long password', 'another one')])"
    )
    assert run_users_script(environment, authenticate) == "[True, False]"

    second = pod.run()
    assert second.error_code == "not_empty", "a second restore would mix two histories"
    assert params_digest(instance, pod.name) == backup.content


BreakBackup = Callable[[Backup, Store], object]


def with_flipped_bit(dump: bytes) -> bytes:
    """Return the dump with one changed bit near its end."""
    position = len(dump) - 40
    return dump[:position] + bytes([dump[position] ^ 1]) + dump[position + 1 :]


LONG_RUNNING = pytest.mark.long_running(
    reason="two containers each; the cases damaged, truncated, unknown-revision and bad-manifest check the same errors"
)


@pytest.mark.parametrize(
    ("error_code", "break_backup", "arguments"),
    [
        pytest.param("damaged", lambda b, s: b.put(s, NEWEST_ID, with_flipped_bit(b.dump)), {}, id="damaged"),
        pytest.param(
            "damaged", lambda b, s: b.put(s, NEWEST_ID, b.dump[:-1]), {}, id="wrong-size", marks=LONG_RUNNING
        ),
        # The manifest matches the truncated dump.
        pytest.param(
            "pg_restore",
            lambda b, s: b.put(
                s,
                NEWEST_ID,
                b.dump[:-1],
                sizeBytes=len(b.dump) - 1,
                sha256=hashlib.sha256(b.dump[:-1]).hexdigest(),
            ),
            {},
            id="truncated",
        ),
        pytest.param(
            "pg_restore",
            lambda b, s: b.put(s, NEWEST_ID, schemaRevision=SCHEMA_HEADS["3.14.0"]),
            {},
            id="other-revision",
            marks=LONG_RUNNING,
        ),
        pytest.param(
            "newer_schema",
            lambda b, s: b.put(s, NEWEST_ID, schemaRevision="ffffffffffff"),
            {},
            id="unknown-revision",
        ),
        pytest.param(
            "format",
            lambda b, s: b.put(s, NEWEST_ID, formatVersion=3),
            {},
            id="unknown-format",
            marks=LONG_RUNNING,
        ),
        pytest.param(
            "format", lambda b, s: b.put(s, NEWEST_ID, sha256="'; DROP TABLE x"), {}, id="bad-manifest"
        ),
        pytest.param(
            "missing_keys",
            lambda b, s: b.put(
                s, NEWEST_ID, encryption={"passphrases": {"4711": "0" * 32}, "webhookKey": None}
            ),
            {"MLFLOW_CRYPTO_KEK_PASSPHRASE": "another passphrase"},
            id="missing-keys",
        ),
        pytest.param("not_found", lambda b, s: None, {"RESTORE_BACKUP": OLDER_ID}, id="no-such-id"),
        pytest.param(
            "not_found", lambda b, s: None, {"RESTORE_SERVER": "other"}, id="no-backup", marks=LONG_RUNNING
        ),
        pytest.param("store", lambda b, s: None, {"AWS_SECRET_ACCESS_KEY": "wrong"}, id="wrong-key"),
        # The container with pg_restore reads the dump and ends without an outcome.
        pytest.param(
            "pg_restore",
            lambda b, s: None,
            {
                "pg_restore_script": (
                    "cd $RESTORE_FOLDER; until [ -e ready ]; do sleep 0.1; done; exec 3>outcome; sleep 1 <dump"
                )
            },
            id="no-outcome",
            marks=LONG_RUNNING,
        ),
    ],
)
def test_failed_restore_leaves_database_empty(  # noqa: PLR0917
    pod: Pod,
    backup: Backup,
    store: Store,
    error_code: str,
    break_backup: BreakBackup,
    arguments: dict[str, str],
) -> None:
    """Each failure has its own error code."""
    break_backup(backup, store)
    result = pod.run(**arguments)
    assert (result.error_code, result.code > 0) == (error_code, True), result.termination_message
    assert table_count(pod.instance, pod.name) == 0


def test_tables_created_during_restore_are_not_modified(pod: Pod, instance: Instance) -> None:
    """The restore checks for tables within its transaction, because a server may have started meanwhile."""
    script = pod_scripts.PG_RESTORE.replace(
        "cat begin.sql\n", 'echo "COMMIT; CREATE TABLE experiments (a int);"; cat begin.sql\n'
    )
    assert script != pod_scripts.PG_RESTORE
    result = pod.run(pg_restore_script=script)
    assert result.error_code == "pg_restore"
    assert "already holds tables" in result.output
    assert table_count(instance, pod.name) == 1


def test_image_without_pg_restore_is_reported(pod: Pod) -> None:
    """The image must be a Postgres image, but a user can configure another one."""
    result = pod.run(
        pg_restore_script=pod_scripts.PG_RESTORE.replace("in pg_restore psql", "in missing_pg_restore psql")
    )
    assert result.error_code == "pg_restore"
    assert "the image has no missing_pg_restore" in result.termination_message["errors"][0]["message"]
