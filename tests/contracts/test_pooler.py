"""A real PgBouncer in transaction pooling mode, in front of a real Postgres."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.contracts.conftest import PINS
from tests.contracts.postgres import Instance
from tests.contracts.proxies import pgbouncer
from tests.polling import eventually

POSTGRES = Postgres(Sessions())
USER, PASSWORD = "pooled user", 'a "pooled" p@ss/w:rd'
FIELD = "spec.database.external.host"
MIGRATIONS_SECONDS = 400
"""Limit for two migrations, one after the other, on a busy machine."""

ADVISORY_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


@pytest.fixture(scope="module")
def pooled_connection(instance: Instance, test_images: None) -> Iterator[Connection]:
    """A connection through the pooler to a database that the user owns."""
    if not instance.container:
        pytest.skip("the tests did not start this Postgres, so no pooler can be put in front of it")
    instance.query(f"CREATE ROLE \"{USER}\" LOGIN PASSWORD '{PASSWORD}'")
    instance.query(f'CREATE DATABASE pooled OWNER "{USER}" TEMPLATE template0')
    with pgbouncer(PINS["IMAGE_PGBOUNCER"], instance.container, {USER: PASSWORD}) as pooler:
        yield replace(pooler, database="pooled", username=USER, password=PASSWORD)


async def test_database_can_be_inspected_through_pooler(
    instance: Instance, pooled_connection: Connection
) -> None:
    """Repeatedly, with any session of the pool, and with the same result as without pooler."""
    direct = await POSTGRES.inspect(instance.connection(USER, PASSWORD, "pooled"), None, FIELD)
    for _ in range(3):
        state = await POSTGRES.inspect(pooled_connection, None, FIELD)
        assert (state.encoding, state.obstacle) == ("UTF8", None)
        assert state.identity.partition("#")[2] == direct.identity.partition("#")[2]


@pytest.mark.parametrize(
    ("changes", "reason", "fragment"),
    [
        ({"password": "wrong"}, Reason.DATABASE_AUTHENTICATION_FAILED, "auth_query"),
        ({"username": "unknown"}, Reason.DATABASE_AUTHENTICATION_FAILED, "auth_query"),
        ({"database": "missing"}, Reason.DATABASE_AUTHENTICATION_FAILED, "no such database"),
        (
            {"options": (("options", "-c search_path=other"),)},
            Reason.DATABASE_UNREACHABLE,
            "ignore_startup_parameters",
        ),
        ({"options": (("sslmode", "require"),)}, Reason.DATABASE_UNREACHABLE, "does not support TLS"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_error_of_pooler_is_reported_repeatedly(
    pooled_connection: Connection, changes: dict[str, object], reason: Reason, fragment: str
) -> None:
    """The pooler caches the first error. The second attempt must get it before the timeout."""
    for _ in range(2):
        with pytest.raises(ReconcileError) as error:
            await POSTGRES.inspect(replace(pooled_connection, **changes), None, FIELD)  # type: ignore[arg-type]
        assert isinstance(error.value, ConfigurationError)
        assert error.value.reason is reason
        assert fragment in error.value.message


async def test_concurrent_migrations_wait_and_release_their_lock(
    instance: Instance, pooled_connection: Connection
) -> None:
    """Runs the script of the migration Job twice at once. Timeouts of the role must not release the lock."""
    for setting in ("idle_in_transaction_session_timeout", "lock_timeout"):
        instance.query(f"ALTER ROLE \"{USER}\" SET {setting} = '2s'")
    processes = [_start_migration(pooled_connection) for _ in range(2)]
    outputs = [process.communicate(timeout=MIGRATIONS_SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert all("schema is at" in output for output in outputs)
    # PgBouncer and Postgres may still be closing a session.
    eventually("the lock is released", lambda: instance.query(ADVISORY_LOCKS) == [(0,)])
    assert (await POSTGRES.inspect(pooled_connection, None, FIELD)).revision is not None


def _start_migration(pooled_connection: Connection) -> "subprocess.Popen[str]":
    """Start the migration script in MLflow's image, on the host network, where the pooler listens."""
    uri = pooled_connection.with_keepalives().sqlalchemy_uri()
    command = ("docker", "run", "--rm", "--network", "host", "-e", "HOME=/tmp")
    return subprocess.Popen(
        (
            *command,
            "-e",
            f"MLFLOW_BACKEND_STORE_URI={uri}",
            PINS["IMAGE_MLFLOW"],
            "python3",
            "-uc",
            pod_scripts.MIGRATE,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
