"""Passwords and keys are in Secrets, and nowhere else; and the operator never failed. Of a whole run, so at its end."""

import pytest

from tests.e2e import operator_release
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.secret_scan import Record
from tests.e2e.server import Server

GROUP = "shared"


@pytest.mark.last
def test_no_generated_secret_was_anywhere_but_in_secrets(shared: Server, record: Record) -> None:
    """Looked for, plain and in base64: every log, event, status, annotation and argument since the run began."""
    Scientist(shared.url).work("secrets")
    names = {name.rpartition(" ")[2] for name in record.secrets()}
    assert names >= {"password", "uri", "accessKeyID", "secretAccessKey"}
    # what the operator's container is started with is looked for in the same way, and is where it must be
    argument = f"--lease-name={operator_release.RELEASE}"
    places = record.seen(argument, "became the leader")
    assert "arguments" in places
    assert any(place.startswith(("Deployment ", "ReplicaSet ", "Pod ")) for place in places)
    assert any(place.startswith(f"pods/{operator_release.NAMESPACE}_") for place in places)

    leaks = record.leaks()
    assert not leaks, "\n".join(leaks)


@pytest.mark.last
def test_the_operator_never_complained(operator: str, record: Record) -> None:
    """Not in any container that ran since it was installed, those that were killed or replaced included."""
    lines = record.operator_lines(operator)
    assert lines
    assert not operator_release.complaints(lines)
