"""What libpq says becomes a sentence that names the way out, and never what libpq was given."""

import psycopg
import pytest

from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

FIELD = "spec.database.external"

SAID = {
    'connection failed: root certificate file "/x/ca.crt" does not exist': "caSecretRef",
    'connection failed: server certificate for "a" does not match host name "b"': "another host",
    "connection failed: SSL error: certificate verify failed": "not trusted",
    "FATAL: connection requires a valid client certificate": "by a password",
    'FATAL: database "mlflow" does not exist': "no such database or role",
    'FATAL: password authentication failed for user "u"': "refuses the user name or the password",
}


POOLER_SAID = {
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
"""As PgBouncer 1.24 says it, with its own names for what is to be changed."""


@pytest.mark.parametrize("said", SAID)
def test_each_refusal_names_its_own_way_out(said: str) -> None:
    """The texts share words: a missing file of certificates is neither a missing database nor a wrong one."""
    found = from_psycopg(psycopg.OperationalError(said), "db:5432", FIELD)
    assert isinstance(found, ConfigurationError)
    assert SAID[said] in found.message


@pytest.mark.parametrize("said", POOLER_SAID)
def test_a_poolers_refusal_names_the_poolers_setting(said: str) -> None:
    """Who reads it knows then whom to ask: the database itself has said nothing."""
    found = from_psycopg(psycopg.OperationalError(said), "pool:6432", FIELD)
    kind, words = POOLER_SAID[said]
    assert type(found) is kind
    assert "is a PgBouncer" in found.message
    assert words in found.message


async def test_an_option_nobody_knows_is_the_owners_to_mend() -> None:
    """Found before anything is sent, so not a matter of networks."""
    connection = Connection("127.0.0.1", 1, "d", "u", "hunter2", (("sslmood", "hunter2"),))
    with pytest.raises(ConfigurationError) as refusal:
        await inspect(connection, None, FIELD)
    assert refusal.value.reason is Reason.DATABASE_UNREACHABLE
    assert "an option that Postgres does not know" in refusal.value.message
    assert "hunter2" not in refusal.value.message
