"""Values in the Secret of an external database that cannot work: the message names the fault."""

import pytest

from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, URI, SimulatedCluster

BY_HOST: Object = {
    **EXTERNAL,
    "database": {"external": {"host": "one", "credentialsSecretRef": {"name": "db"}}},
}
SYSTEM_CAS = f"{URI.format(host='one')}?sslmode=verify-full&sslrootcert=system"


def simulate(spec: Object, **secret: str) -> SimulatedCluster:
    """A new server whose Secret `db` contains these values."""
    simulation = SimulatedCluster(spec)
    simulation.put_secret("db", **secret)
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    return simulation


@pytest.mark.parametrize(
    ("spec", "secret", "expected"),
    [
        (BY_HOST, {"username": "mlflow\n", "password": "hunter2"}, "The user name begins or ends with"),
        (BY_HOST, {"username": "mlflow", "password": "hunter2\n"}, "The password begins or ends with"),
        (BY_HOST, {"username": "", "password": "hunter2"}, "The user name is empty"),
        (EXTERNAL, {"uri": "postgresql://u%0A:hunter2@h/d"}, "The user name begins or ends with"),
    ],
    ids=["user name", "password", "empty user name", "line break that a template encoded in a URI"],
)
async def test_whitespace_in_a_rejected_login_is_named(
    spec: Object, secret: dict[str, str], expected: str
) -> None:
    """Postgres only reports that the password is wrong."""
    simulation = simulate(spec, **secret)
    simulation.postgres.error = from_psycopg(
        Exception("password authentication failed for user"), "h:1", "spec.database.external"
    )
    await simulation.reconcile()
    _, reason, message = simulation.condition("DatabaseReady")
    assert reason == "DatabaseAuthenticationFailed"
    assert expected in message
    assert "hunter2" not in message


async def test_sslrootcert_system_is_refused_without_a_ca() -> None:
    """The images of the operator, MLflow and PostgreSQL have different CAs, or none."""
    simulation = simulate(EXTERNAL, uri=SYSTEM_CAS)
    await simulation.reconcile()
    _, reason, message = simulation.condition("CredentialsReady")
    assert reason == "SecretValueInvalid"
    assert "sslrootcert=system" in message
    assert "spec.database.external.tls.caSecretRef" in message


async def test_the_ca_of_the_spec_replaces_sslrootcert_system() -> None:
    external: Object = EXTERNAL["database"]["external"]
    tls = {"mode": "VerifyFull", "caSecretRef": {"name": "ca"}}
    simulation = simulate({**EXTERNAL, "database": {"external": {**external, "tls": tls}}}, uri=SYSTEM_CAS)
    simulation.put_secret("ca", **{"ca.crt": "PEM"})
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[0] == "True"
    assert "sslrootcert=system" not in simulation.secret("a-server")["backend-store-uri"]
