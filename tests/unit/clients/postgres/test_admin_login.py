"""The login of a platform's administrator, against servers that are not the platform's."""

from dataclasses import replace

import pytest

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.platform import DATABASE_FIELD, PlatformDatabase
from mlflow_operator.model.server import SecretKey
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.clients.silent_servers import postgres_that_requests_cleartext, serve

KEY = SecretKey("postgres-admin", "password", DATABASE_FIELD, "mlflow-platform")


async def log_in(port: int, mode: DatabaseTLSMode) -> None:
    """Check an administrator whose connection is not encrypted, although the mode may require it."""
    database = PlatformDatabase("127.0.0.1", port, KEY, KEY, mode, None, 130)
    admin = database.admin_connection("postgres", "admin", "hunter2")
    options = tuple({**dict(admin.options), "sslmode": "disable", "gssencmode": "disable"}.items())
    await PostgresAdmin(Sessions(connect_timeout_seconds=1)).check(
        replace(admin, options=options), None, DATABASE_FIELD
    )


@pytest.mark.parametrize(
    "mode", [DatabaseTLSMode.REQUIRE, DatabaseTLSMode.VERIFY_CA, DatabaseTLSMode.VERIFY_FULL]
)
async def test_server_that_requests_a_cleartext_password_gets_none(mode: DatabaseTLSMode) -> None:
    """TLS alone does not help: the other end may have a valid certificate and still be another service."""
    passwords: list[bytes] = []
    async with serve(postgres_that_requests_cleartext(passwords)) as port:
        with pytest.raises(
            ConfigurationError, match="with scram-sha-256, so the operator does not send"
        ) as error:
            await log_in(port, mode)
    assert error.value.reason is Reason.DATABASE_AUTHENTICATION_FAILED
    assert passwords == []


async def test_platform_can_opt_out() -> None:
    """The condition of a platform with this mode says that others can read the password."""
    passwords: list[bytes] = []
    async with serve(postgres_that_requests_cleartext(passwords)) as port:
        with pytest.raises(TransientError):
            await log_in(port, DatabaseTLSMode.DISABLE)
    assert passwords == [b"hunter2\0"]
