"""The rewrap program, with the secrets of the pinned MLflow version in a real Postgres."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_operator import pod_scripts
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.clients.postgres.client import Postgres as PostgresClient
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model import encryption
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.postgres_uri import Connection
from tests.integration.postgres import PASSWORD, USER, Postgres

DEFAULT = "mlflow-default-kek-passphrase-for-development-only"
# The program imports the driver of MLflow's image; the one that is installed here has the same functions.
PROGRAM = f"import psycopg, sys; sys.modules['psycopg2'] = psycopg\n{pod_scripts.REWRAP}"
VARIABLES = ("MLFLOW_CRYPTO_KEK_PASSPHRASE", "MLFLOW_CRYPTO_KEK_VERSION")

pytestmark = pytest.mark.timeout(300)


class Database:
    """A database with MLflow's tables, which the program and a store of MLflow use."""

    def __init__(self, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, keyring: Path) -> None:
        self.monkeypatch, self.keyring = monkeypatch, keyring
        name = postgres.create_database()
        postgres.drop_schema(name)
        self.address = f"{USER}:{PASSWORD}@127.0.0.1:{postgres.port}/{name}"
        self.set_passphrase(None)
        self.store = SqlAlchemyStore(f"postgresql+psycopg://{self.address}", "/artifacts")

    def set_passphrase(self, passphrase: str | None, version: int = 1) -> None:
        """Set what MLflow reads from the environment at each use."""
        for name in VARIABLES:
            self.monkeypatch.delenv(name, raising=False)
        if passphrase:
            self.monkeypatch.setenv(VARIABLES[0], passphrase)
            self.monkeypatch.setenv(VARIABLES[1], str(version))

    def create_secret(self, name: str) -> str:
        """Create a gateway secret; return its ID."""
        return str(self.store.create_gateway_secret(name, {"api_key": f"key-of-{name}"}).secret_id)

    def read_secret(self, secret_id: str) -> str:
        """The decrypted value of a gateway secret."""
        return str(self.store._get_decrypted_secret(secret_id)["api_key"])

    def versions(self) -> list[int]:
        """Versions of the passphrases of all gateway secrets."""
        return [
            int(str(row[0])) for row in self.query("SELECT kek_version FROM secrets ORDER BY secret_name")
        ]

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement; return its rows."""
        with psycopg.connect(f"postgresql://{self.address}", autocommit=True) as session:
            cursor = session.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    async def inspect(self) -> DatabaseState:
        """Inspect the database as the operator does."""
        user, port, name = (
            USER,
            int(self.address.rpartition(":")[2].partition("/")[0]),
            self.address.rpartition("/")[2],
        )
        connection = Connection("127.0.0.1", port, name, user, PASSWORD)
        return await PostgresClient(Sessions()).inspect(connection, None, "spec.database")

    def encrypted_for_backup(self) -> tuple[set[int], bool]:
        """Inspect the database as the program that makes backups does."""
        driver: Any = ModuleType("psycopg2.extensions")
        driver.parse_dsn = dict
        self.monkeypatch.setitem(sys.modules, "psycopg2", psycopg)
        self.monkeypatch.setitem(sys.modules, "psycopg2.extensions", driver)
        program: dict[str, Any] = {"__name__": "backup"}
        exec(pod_scripts.BACKUP.removesuffix("\nmain()\n"), program)  # noqa: S102
        result: tuple[set[int], bool] = program["Database"](f"postgresql://{self.address}").encrypted()
        return result

    def start(self, passphrase: str, version: int, webhook_key: str | None = None) -> subprocess.Popen[str]:
        """Start the program as its Job does."""
        environment = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")} | {
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{self.address}",
            VARIABLES[0]: passphrase,
            VARIABLES[1]: str(version),
            "KEYRING": f"{self.keyring}:/missing",
        }
        if webhook_key:
            environment["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] = webhook_key
        return subprocess.Popen(
            [sys.executable, "-u", "-c", PROGRAM],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rewrap(self, passphrase: str, version: int, webhook_key: str | None = None) -> tuple[int, str]:
        """Run the program; return its exit code and output."""
        process = self.start(passphrase, version, webhook_key)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A Postgres."""
    postgres = Postgres()
    yield postgres
    postgres.stop()


@pytest.fixture
def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """A database with MLflow's tables."""
    return Database(postgres, monkeypatch, tmp_path)


def test_secrets_under_the_public_passphrase_are_readable_with_the_generated_one(database: Database) -> None:
    """MLflow itself reads every secret after the rotation, and the public passphrase no longer decrypts any."""
    ids = [database.create_secret(name) for name in ("one", "two")]
    assert database.versions() == [1, 1]
    code, output = database.rewrap("generated", 4711)
    assert (code, output) == (0, "encrypted gateway secrets: 2, webhook secrets: 0\n")
    assert database.versions() == [4711, 4711]
    with pytest.raises(Exception, match="decrypt"):
        database.read_secret(ids[0])
    database.set_passphrase("generated", 4711)
    assert [database.read_secret(secret_id) for secret_id in ids] == ["key-of-one", "key-of-two"]
    # another run, for example after an interruption before its result was recorded
    assert database.rewrap("generated", 4711) == (0, "encrypted gateway secrets: 0, webhook secrets: 0\n")


def test_secret_written_by_a_late_pod_is_rotated_by_the_next_run(database: Database) -> None:
    """A pod with the public passphrase may still run: its version shows what it writes."""
    first = database.create_secret("one")
    assert database.rewrap("generated", 4711)[0] == 0
    late = database.create_secret("late")
    database.store.update_gateway_secret(first, {"api_key": "replaced"})
    assert database.versions() == [1, 1]
    assert database.rewrap("generated", 4711)[0] == 0
    database.set_passphrase("generated", 4711)
    assert [database.read_secret(secret_id) for secret_id in (first, late)] == ["replaced", "key-of-late"]


def test_rotation_uses_earlier_passphrases_of_the_keyring(database: Database, tmp_path: Path) -> None:
    """Secrets of several earlier versions are rotated in one run, for example after a restore."""
    database.set_passphrase("earlier", 7)
    secret_id = database.create_secret("one")
    database.set_passphrase(None)
    other_id = database.create_secret("two")
    (tmp_path / "passphrase-7").write_text("earlier")
    assert database.rewrap("next", 8)[0] == 0
    database.set_passphrase("next", 8)
    assert [database.read_secret(i) for i in (secret_id, other_id)] == ["key-of-one", "key-of-two"]


def test_one_unreadable_secret_leaves_all_secrets_unchanged(database: Database) -> None:
    """Nothing is lost and nothing is changed; the message names the secret."""
    database.create_secret("readable")
    database.set_passphrase("lost", 9)
    database.create_secret("unreadable")
    code, output = database.rewrap("generated", 4711)
    assert code == 1
    assert 'no known passphrase decrypts these gateway secrets: "unreadable" (version 9)' in output
    assert database.versions() == [1, 9]


def test_secrets_of_an_ignored_passphrase_stay_as_they_are(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore with `missingKeyPolicy: Ignore`, the others are encrypted with the new passphrase."""
    readable = database.create_secret("readable")
    database.set_passphrase("lost", 9)
    database.create_secret("unreadable")
    monkeypatch.setenv("UNKNOWN_VERSIONS", "Skip")
    assert database.rewrap("generated", 4711)[0] == 0
    assert database.versions() == [4711, 9]
    database.set_passphrase("generated", 4711)
    assert database.read_secret(readable) == "key-of-readable"


def test_secret_with_a_wrong_version_is_repaired(database: Database) -> None:
    """The version is only a hint: the keys are tried."""
    secret_id = database.create_secret("one")
    database.query("UPDATE secrets SET kek_version = 4711")
    assert database.rewrap("generated", 4711)[0] == 0
    database.set_passphrase("generated", 4711)
    assert database.read_secret(secret_id) == "key-of-one"


def test_transaction_that_has_read_a_secret_is_waited_for(database: Database) -> None:
    """Otherwise a server could store a secret under the old passphrase with the version of the new one."""
    database.create_secret("one")
    with psycopg.connect(f"postgresql://{database.address}") as session:
        session.execute("SELECT kek_version FROM secrets")
        process = database.start("generated", 4711)
        deadline = time.monotonic() + 60
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'secrets'::regclass"
        while database.query(waiting)[0][0] != 1 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        session.commit()
    assert process.wait(60) == 0
    assert database.versions() == [4711]


def test_killed_program_changes_nothing(database: Database) -> None:
    """The rotation is one transaction."""
    database.create_secret("one")
    with psycopg.connect(f"postgresql://{database.address}") as session:
        session.execute("SELECT pg_advisory_xact_lock(%s)", [0x6D6C666C6F77])
        process = database.start("generated", 4711)
        time.sleep(1)
        process.kill()
        process.wait()
    assert database.versions() == [1]
    assert database.rewrap("generated", 4711)[0] == 0


def test_webhook_secrets_are_encrypted_with_the_current_key(database: Database, tmp_path: Path) -> None:
    """Secrets under an earlier key are readable afterwards; those under an unknown key stay as they are."""
    keys = [Fernet.generate_key() for _ in range(3)]
    lost = Fernet(keys[2]).encrypt(b"three").decode()
    tokens = [Fernet(keys[0]).encrypt(b"one").decode(), Fernet(keys[1]).encrypt(b"two").decode(), lost]
    for number, token in enumerate(tokens):
        row = f"('w{number}', 'w', 'https://example.com', 'ACTIVE', '{token}')"
        database.query(f"INSERT INTO webhooks (webhook_id, name, url, status, secret) VALUES {row}")  # noqa: S608
    (tmp_path / "webhook-key-0a").write_text(keys[1].decode())
    code, output = database.rewrap("generated", 4711, keys[0].decode())
    assert (code, output) == (0, "encrypted gateway secrets: 0, webhook secrets: 1\n")
    stored = [str(row[0]) for row in database.query("SELECT secret FROM webhooks ORDER BY webhook_id")]
    assert [Fernet(keys[0]).decrypt(token) for token in stored[:2]] == [b"one", b"two"]
    assert stored[2] == lost


def test_every_webhook_key_of_the_operator_is_tried(database: Database, tmp_path: Path) -> None:
    """Otherwise it would start the Job again and again. An invalid key does not keep the Job from using the others."""
    current, values = (
        Fernet.generate_key(),
        {f"webhook-key{suffix}": "" for suffix in ("-old", "-2025.x", "")},
    )
    for number, name in enumerate(values):
        key = Fernet.generate_key()
        values[name] = key.decode()
        token = Fernet(key).encrypt(b"" if number else b"secret").decode()
        row = f"('{number}', 'w', 'https://example.com', 'ACTIVE', '{token}')"
        database.query(f"INSERT INTO webhooks (webhook_id, name, url, status, secret) VALUES {row}")  # noqa: S608
    values["webhook-key-0"] = "invalid"
    for name, text in values.items():
        (tmp_path / name).write_text(text)
    assert sorted(encryption.webhook_keys(values)) == sorted(values.values())
    code, output = database.rewrap("generated", 4711, current.decode())
    assert (code, output.splitlines()[-1]) == (0, "encrypted gateway secrets: 0, webhook secrets: 3")
    stored = [(str(row[0]), str(row[1])) for row in database.query("SELECT webhook_id, secret FROM webhooks")]
    assert encryption.unreadable_webhooks(stored, [current.decode()]) == []


async def test_operator_sees_which_keys_the_stored_secrets_need(database: Database) -> None:
    """The versions of passphrases, and the secrets of webhooks that are not deleted."""
    database.create_secret("one")
    database.set_passphrase("other", 4711)
    database.create_secret("two")
    for webhook, secret, deleted in (
        ("w1", "'token'", "NULL"),
        ("w2", "NULL", "NULL"),
        ("w3", "'token'", "1"),
    ):
        row = f"('{webhook}', 'w', 'https://example.com', 'ACTIVE', {secret}, {deleted})"
        columns = "webhook_id, name, url, status, secret, deleted_timestamp"
        database.query(f"INSERT INTO webhooks ({columns}) VALUES {row}")  # noqa: S608
    assert (await database.inspect()).encrypted == EncryptedSecrets(frozenset({1, 4711}), (("w1", "token"),))
    assert database.encrypted_for_backup() == ({1, 4711}, True)
    for table in ("secrets", "webhooks"):
        database.query(f"DROP TABLE {table} CASCADE")
        database.query(f"CREATE TABLE {table} (secret text)")
    assert (await database.inspect()).encrypted == EncryptedSecrets()
    assert database.encrypted_for_backup() == (set(), False)


async def test_inspection_does_not_wait_for_a_migration(database: Database) -> None:
    """It locks the tables until it ends. Sessions that wait would use up all connections."""
    database.create_secret("one")
    with psycopg.connect(f"postgresql://{database.address}") as session:
        for table in ("secrets", "webhooks"):
            session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            state = await database.inspect()
            assert state.revision
            assert state.encrypted is None
            assert database.query("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]
            session.rollback()
    assert (await database.inspect()).encrypted == EncryptedSecrets(frozenset({1}))


def test_table_of_another_application_is_not_touched(postgres: Postgres, database: Database) -> None:
    """A database may be shared, and `secrets` is a common name."""
    for table in ("secrets", "webhooks"):
        database.query(f"DROP TABLE {table} CASCADE")
    database.query("CREATE TABLE secrets (id int)")
    database.query("INSERT INTO secrets VALUES (1)")
    assert database.rewrap("generated", 4711, Fernet.generate_key().decode())[0] == 0
