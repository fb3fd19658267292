"""A real PgBouncer that lends sessions by the transaction, before a real Postgres."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.contracts.conftest import PINS
from tests.contracts.postgres import Instance
from tests.contracts.proxies import pgbouncer

USER, PASSWORD = "pooled user", 'a "pooled" p@ss/w:rd'
FIELD = "spec.database.external.host"


@pytest.fixture(scope="module")
def pooled(instance: Instance, test_images: None) -> Iterator[Connection]:
    """A database of a user's own, by the pooler."""
    if not instance.container:
        pytest.skip("the Postgres is none of ours, so no pooler can be put before it")
    instance.query(f"CREATE ROLE \"{USER}\" LOGIN PASSWORD '{PASSWORD}'")
    instance.query(f'CREATE DATABASE pooled OWNER "{USER}" TEMPLATE template0')
    with pgbouncer(PINS["IMAGE_PGBOUNCER"], instance.container, {USER: PASSWORD}) as found:
        yield replace(found, database="pooled", username=USER, password=PASSWORD)


async def test_the_operator_sees_the_database_through_it(instance: Instance, pooled: Connection) -> None:
    """The same as without; again and again, by whichever session is lent."""
    direct = await inspect(instance.connection(USER, PASSWORD, "pooled"), None, FIELD)
    for _ in range(3):
        seen = await inspect(pooled, None, FIELD)
        assert (seen.encoding, seen.obstacle) == ("UTF8", None)
        assert seen.identity.partition("#")[2] == direct.identity.partition("#")[2]


@pytest.mark.parametrize(
    ("changed", "reason", "words"),
    [
        ({"password": "wrong"}, Reason.DATABASE_AUTHENTICATION_FAILED, "auth_query"),
        ({"username": "stranger"}, Reason.DATABASE_AUTHENTICATION_FAILED, "auth_query"),
        ({"database": "missing"}, Reason.DATABASE_AUTHENTICATION_FAILED, "no such database"),
        (
            {"options": (("options", "-c search_path=other"),)},
            Reason.DATABASE_UNREACHABLE,
            "ignore_startup_parameters",
        ),
        ({"options": (("sslmode", "require"),)}, Reason.DATABASE_UNREACHABLE, "speaks no TLS"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_it_refuses_is_told_as_often_as_it_is_asked(
    pooled: Connection, changed: dict[str, object], reason: Reason, words: str
) -> None:
    """The second time from its memory of the first, for which it must not take longer than we wait."""
    for _ in range(2):
        with pytest.raises(ReconcileError) as told:
            await inspect(replace(pooled, **changed), None, FIELD)  # type: ignore[arg-type]
        assert isinstance(told.value, ConfigurationError)
        assert told.value.reason is reason
        assert words in told.value.message


async def test_migrations_wait_for_each_other_and_leave_no_lock_in_the_pool(
    instance: Instance, pooled: Connection
) -> None:
    """The very program of the migration's Job, twice at once. Its role's time-outs can't take the lock away."""
    for setting in ("idle_in_transaction_session_timeout", "lock_timeout"):
        instance.query(f"ALTER ROLE \"{USER}\" SET {setting} = '2s'")
    running = [_migration(pooled) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert all("schema is at" in each for each in said)
    assert instance.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    assert (await inspect(pooled, None, FIELD)).revision is not None


def _migration(pooled: Connection) -> "subprocess.Popen[str]":
    """In MLflow's image, on this machine's network, where the pooler is."""
    uri = pooled.with_keepalives().sqlalchemy()
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
