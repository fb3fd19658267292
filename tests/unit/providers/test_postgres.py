"""What libpq says becomes a sentence that names the way out, and never what libpq was given."""

import psycopg
import pytest

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.providers.postgres import inspect
from mlflow_operator.providers.postgres_faults import fault

FIELD = "spec.database.external"

SAID = {
    'connection failed: root certificate file "/x/ca.crt" does not exist': "caSecretRef",
    'connection failed: server certificate for "a" does not match host name "b"': "another host",
    "connection failed: SSL error: certificate verify failed": "not trusted",
    "FATAL: connection requires a valid client certificate": "by a password",
    'FATAL: database "mlflow" does not exist': "no such database or role",
    'FATAL: password authentication failed for user "u"': "refuses the user name or the password",
}


@pytest.mark.parametrize("said", SAID)
def test_each_refusal_names_its_own_way_out(said: str) -> None:
    """The texts share words: a missing file of certificates is neither a missing database nor a wrong one."""
    found = fault(psycopg.OperationalError(said), "db:5432", FIELD)
    assert isinstance(found, UserMistake)
    assert SAID[said] in found.message


async def test_an_option_nobody_knows_is_the_owners_to_mend() -> None:
    """Found before anything is sent, so not a matter of networks."""
    connection = Connection("127.0.0.1", 1, "d", "u", "hunter2", (("sslmood", "hunter2"),))
    with pytest.raises(UserMistake) as refusal:
        await inspect(connection, None, FIELD)
    assert refusal.value.reason is Reason.DATABASE_UNREACHABLE
    assert "an option that Postgres does not know" in refusal.value.message
    assert "hunter2" not in refusal.value.message
