"""libpq's and PgBouncer's errors become messages that say what to do, and that do not contain libpq's parameters."""

import psycopg
import pytest

from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

FIELD = "spec.database.external"

LIBPQ_ERRORS = {
    'connection failed: root certificate file "/x/ca.crt" does not exist': "caSecretRef",
    'connection failed: server certificate for "a" does not match host name "b"': "another host",
    "connection failed: SSL error: certificate verify failed": "not trusted",
    "FATAL: connection requires a valid client certificate": "with a password",
    'FATAL: database "mlflow" does not exist': "no such database or role",
    'FATAL: password authentication failed for user "u"': "rejects the user name or the password",
}


PGBOUNCER_ERRORS = {
    "FATAL:  SASL authentication failed": (ConfigurationError, "auth_query"),
    "FATAL:  unsupported startup parameter in options: search_path": (
        ConfigurationError,
        "ignore_startup_parameters",
    ),
    "FATAL:  no more connections allowed (max_client_conn)": (TransientError, "Raise its max_client_conn"),
    "FATAL:  query_wait_timeout": (TransientError, "default_pool_size"),
    "FATAL:  server login has been failing, cached error: connect failed (server_login_retry)": (
        TransientError,
        "[databases]",
    ),
}
"""Errors of PgBouncer 1.24, and the setting of PgBouncer that the message must name."""


@pytest.mark.parametrize("error_text", LIBPQ_ERRORS)
def test_message_matches_libpq_error(error_text: str) -> None:
    """The texts share fragments: a missing certificate file is neither a missing database nor a wrong certificate."""
    error = from_psycopg(psycopg.OperationalError(error_text), "db:5432", FIELD)
    assert isinstance(error, ConfigurationError)
    assert LIBPQ_ERRORS[error_text] in error.message


@pytest.mark.parametrize("error_text", PGBOUNCER_ERRORS)
def test_message_names_setting_of_pgbouncer(error_text: str) -> None:
    """The reader must see that PgBouncer, not the database, reported the error."""
    error = from_psycopg(psycopg.OperationalError(error_text), "pool:6432", FIELD)
    error_type, fragment = PGBOUNCER_ERRORS[error_text]
    assert type(error) is error_type
    assert "is a PgBouncer" in error.message
    assert fragment in error.message


async def test_unknown_connection_option_is_configuration_error() -> None:
    """libpq detects the option before it connects, so the cause is not the network."""
    connection = Connection("127.0.0.1", 1, "d", "u", "hunter2", (("sslmood", "hunter2"),))
    with pytest.raises(ConfigurationError) as error:
        await Postgres(Sessions()).inspect(connection, None, FIELD)
    assert error.value.reason is Reason.DATABASE_UNREACHABLE
    assert "an option that Postgres does not know" in error.value.message
    assert "hunter2" not in error.value.message
