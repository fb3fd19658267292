"""The message for each error of a database, with real databases that have the fault."""

from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.contracts import postgres
from tests.contracts.conftest import PINS
from tests.contracts.postgres import Instance
from tests.e2e.certificates import create_authority
from tests.polling import eventually

IMAGE = PINS["IMAGE_POSTGRES"]
SESSIONS = Sessions()
POSTGRES, POSTGRES_ADMIN = Postgres(SESSIONS), PostgresAdmin(SESSIONS)
FIELD = "spec.database.provision"
OWNER = ServerRef("a", "team", "uid")
NAME = provisioning.derived_name(OWNER)
PLAN = DatabasePlan(NAME, NAME, 20, provisioning.marker(OWNER, None))
LOGIN = Login(PLAN.logins[0], "password")
CLIENT_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
TRUSTED_CA, OTHER_CA = create_authority("Trusted CA"), create_authority("Other CA")


def tls_setup_script() -> str:
    """A script that makes Postgres require TLS, with a certificate for `localhost`."""
    certificate, key = TRUSTED_CA.issue("localhost")
    return f"""
echo '{certificate}' > $PGDATA/server.crt; echo '{key}' > $PGDATA/server.key; chmod 600 $PGDATA/server.key
echo 'hostssl all all all scram-sha-256' > $PGDATA/pg_hba.conf
echo 'local all all trust' >> $PGDATA/pg_hba.conf
echo 'ssl = on' >> $PGDATA/postgresql.conf
"""


@pytest.fixture(scope="module")
def tls_instance() -> Iterator[Instance]:
    """A Postgres that requires TLS."""
    instance = postgres.start(IMAGE, script=tls_setup_script())
    yield instance
    postgres.stop(instance)


@pytest.fixture(scope="module")
def standby() -> Iterator[Instance]:
    """A standby without a primary."""
    instance = postgres.start(IMAGE, script="touch $PGDATA/standby.signal")
    yield instance
    postgres.stop(instance)


@pytest.fixture(scope="module")
def small_instance() -> Iterator[Instance]:
    """A Postgres with a disk of 96 MB and six connections, three of which are reserved for superusers."""
    instance = postgres.start(IMAGE, "-c", "max_connections=6", "-c", "max_wal_senders=0", data_megabytes=96)
    yield instance
    postgres.stop(instance)


def superuser_connection(instance: Instance) -> Connection:
    """The connection of the superuser, without TLS options."""
    return instance.connection(instance.user, instance.password)


async def assert_error(
    call: Awaitable[object], error_type: type[ReconcileError], reason: Reason, message_end: str
) -> None:
    """Await `call` and check its error. `message_end` is the message after the database's address."""
    with pytest.raises(error_type) as error:
        await call
    assert error.value.reason is reason
    assert error.value.message.partition(" ")[2].endswith(message_end)
    assert "root" not in error.value.message


async def test_tls_required_by_database(tls_instance: Instance) -> None:
    """But disabled by the client."""
    plain = superuser_connection(tls_instance).with_tls(DatabaseTLSMode.DISABLE, None)
    message_end = (
        "has no pg_hba.conf entry for this client, user, database and encryption. Add one, or change "
        f"{FIELD}.tls.mode."
    )
    await assert_error(
        POSTGRES.inspect(plain, None, FIELD),
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        message_end,
    )
    await assert_error(
        POSTGRES_ADMIN.provision(plain, None, PLAN, LOGIN, FIELD),
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        message_end,
    )


async def test_certificate_of_unknown_ca(tls_instance: Instance, tmp_path: Path) -> None:
    """With the correct CA certificate, inspecting and provisioning work."""
    trusted, other = tmp_path / "trusted.crt", tmp_path / "other.crt"
    trusted.write_text(TRUSTED_CA.pem)
    other.write_text(OTHER_CA.pem)
    verified = replace(superuser_connection(tls_instance), host="localhost").with_tls(
        DatabaseTLSMode.VERIFY_FULL, None
    )
    message_end = (
        "presents a certificate that is not trusted. "
        f"Store the certificate of its CA in the Secret referenced by {FIELD}.tls.caSecretRef."
    )
    for call in (
        POSTGRES.inspect(verified, str(other), FIELD),
        POSTGRES_ADMIN.provision(verified, str(other), PLAN, LOGIN, FIELD),
    ):
        await assert_error(call, ConfigurationError, Reason.DATABASE_UNREACHABLE, message_end)
    await assert_error(
        POSTGRES.inspect(replace(verified, host="127.0.0.1"), str(trusted), FIELD),
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        "presents a certificate for another host. Use the host name in the certificate, or mode VerifyCA in "
        f"{FIELD}.tls.",
    )
    await POSTGRES_ADMIN.provision(verified, str(trusted), PLAN, LOGIN, FIELD)
    login = replace(verified, database=PLAN.database, username=LOGIN.name, password=LOGIN.password)
    await POSTGRES.inspect(login, str(trusted), FIELD)


async def test_tls_not_supported_by_database(instance: Instance) -> None:
    """But required by the client."""
    await assert_error(
        POSTGRES.inspect(superuser_connection(instance).with_tls(DatabaseTLSMode.REQUIRE, None), None, FIELD),
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        f"does not support TLS, which {FIELD}.tls.mode requires. Enable TLS in the database, or use mode Prefer.",
    )


async def test_standby(standby: Instance) -> None:
    """Configured as host: nothing can be created there."""
    message_end = (
        "is read-only: it is a standby, or default_transaction_read_only is on. "
        f"Configure the primary in {FIELD}."
    )
    await assert_error(
        POSTGRES_ADMIN.provision(superuser_connection(standby), None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_READ_ONLY,
        message_end,
    )
    await assert_error(
        POSTGRES.inspect(superuser_connection(standby), None, FIELD),
        TransientError,
        Reason.DATABASE_READ_ONLY,
        message_end,
    )


async def test_host_name_does_not_resolve() -> None:
    """The message names the field."""
    nowhere = Connection("postgres.nowhere.invalid", 5432, "postgres", "root", "root")
    await assert_error(
        POSTGRES_ADMIN.provision(nowhere, None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        f"has a host name that does not resolve in this cluster. Check {FIELD}.",
    )


async def test_too_many_connections(small_instance: Instance) -> None:
    """In total, and of one database; when inspecting and when provisioning."""
    admin = small_instance.create_admin("crowded", "secret")
    # The session that created it may still be closing. With it, the third session below would be the fourth.
    eventually("the other sessions are closed", lambda: small_instance.query(CLIENT_SESSIONS) == [(1,)])
    message_end = (
        "has no free connections. Raise its max_connections, or the limit of the database or of the user."
    )
    with ExitStack() as sessions:
        for _ in range(3):
            sessions.enter_context(closing(small_instance.session(user="crowded", password="secret")))
        await assert_error(
            POSTGRES_ADMIN.provision(admin, None, PLAN, LOGIN, FIELD),
            TransientError,
            Reason.DATABASE_UNREACHABLE,
            message_end,
        )
        await assert_error(
            POSTGRES.inspect(admin, None, FIELD), TransientError, Reason.DATABASE_UNREACHABLE, message_end
        )
    small_instance.query("ALTER DATABASE postgres CONNECTION LIMIT 0")
    await assert_error(
        POSTGRES.inspect(admin, None, FIELD), TransientError, Reason.DATABASE_UNREACHABLE, message_end
    )
    small_instance.query("ALTER DATABASE postgres CONNECTION LIMIT -1")


async def test_full_disk(small_instance: Instance) -> None:
    """Provisioning continues when there is free space."""
    fill = "$PGDATA/fill"
    small_instance.run_script(f"cat /dev/zero > {fill} 2>/dev/null || true")
    await assert_error(
        POSTGRES_ADMIN.provision(superuser_connection(small_instance), None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_FULL,
        "has no space left on its disk. Enlarge its volume or free space; the operator then retries automatically.",
    )
    small_instance.run_script(f"rm {fill}")
    await POSTGRES_ADMIN.provision(superuser_connection(small_instance), None, PLAN, LOGIN, FIELD)
