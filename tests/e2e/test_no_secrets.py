"""Checks of the whole run, at its end: generated credentials only occur in Secrets, and the operator had no errors."""

import pytest

from tests.e2e import operator_release, timeouts
from tests.e2e.accounts import Login, record_password
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Workload
from tests.e2e.secret_scan import AUTHORIZATION, Record
from tests.e2e.server import Server, eventually, small_spec

GROUP = "shared"


@pytest.mark.last
def test_generated_values_only_occur_in_secrets(shared_server: Server, record: Record) -> None:
    """Searches every log, event, status, annotation and command line of the run, plain and in base64."""
    Workload(shared_server.url).log_data("secrets")
    names = {name.rpartition(" ")[2] for name in record.generated_values()}
    assert names >= {"password", "uri", "accessKeyID", "secretAccessKey"}
    # The same search must find an argument and a log line of the operator's container, which are known to be recorded.
    argument = f"--lease-name={operator_release.RELEASE}"
    places = record.places_with(argument, "became the leader")
    assert "arguments" in places
    assert any(place.startswith(("Deployment ", "ReplicaSet ", "Pod ")) for place in places)
    assert any(place.startswith(f"pods/{operator_release.NAMESPACE}_") for place in places)

    leaks = record.leaks()
    assert not leaks, "\n".join(leaks)


@pytest.mark.last
def test_passwords_of_accounts_are_searched(ns: Kube, record: Record) -> None:
    """That of the administrator, which the operator generates before it needs the database, and those of users."""
    ns.apply(secret("database", username="unknown", password="password-of-unknown"))
    database = {"host": "postgres.invalid", "credentialsSecretRef": {"name": "database"}}
    store = {"endpoint": "http://s3.invalid", "bucket": "mlflow"}
    server = Server(ns).apply(small_spec(auth={}, database={"external": database}, artifacts={"s3": store}))
    record_password(ns, Login("user", "password-of-a-user"))

    def is_searched() -> bool:
        places = {name.partition(" ")[2] for name in record.generated_values()}
        searched = {f"{ns.namespace}/{server.name}-admin {key}" for key in ("password", AUTHORIZATION)}
        return searched <= places and "password-of-a-user" in record.generated_values().values()

    eventually("the passwords are searched", is_searched, timeouts.STATUS_SECONDS)


@pytest.mark.last
def test_operator_logged_no_errors(operator: str, record: Record) -> None:
    """In all its containers since it was installed, killed and replaced ones included."""
    lines = record.operator_lines(operator)
    assert lines
    assert not operator_release.error_lines(lines)
