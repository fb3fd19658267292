"""Which values of Secrets the end-to-end tests search for in everything that a run exposes."""

import base64
from typing import cast

import pytest

from tests.e2e.kube import Kube, Object
from tests.e2e.secret_scan import BASIC_AUTH_TYPE, MANAGED_BY_LABEL, SEARCHED_LABEL, Record

MANAGED, SEARCHED = dict([MANAGED_BY_LABEL]), {SEARCHED_LABEL: "true"}


def in_base64(value: str) -> str:
    """Encode a value."""
    return base64.b64encode(value.encode()).decode()


def record(labels: dict[str, str], kind: str = "Opaque", **values: str) -> Record:
    """Return a record that has seen one Secret."""
    found = Record(cast("Kube", None))
    secret: Object = {
        "metadata": {"name": "admin", "namespace": "team", "labels": labels},
        "type": kind,
        "data": {key: in_base64(value) for key, value in values.items()},
    }
    found._add("Secret", secret)
    return found


@pytest.mark.parametrize("labels", [MANAGED, SEARCHED])
def test_login_is_searched_in_each_form(labels: dict[str, str]) -> None:
    """Also as HTTP clients send it, in which the encoded password does not occur."""
    found = record(labels, BASIC_AUTH_TYPE, username="admin", password="generated-password")
    assert found.generated_values() == {
        "Secret team/admin password": "generated-password",
        "Secret team/admin authorization": in_base64("admin:generated-password"),
    }


def test_values_that_a_test_gives_to_a_server_are_not_searched() -> None:
    """Tests put them into specs and databases themselves."""
    assert record({}, BASIC_AUTH_TYPE, username="team", password="a-password").generated_values() == {}
