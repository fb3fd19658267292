"""The account of the administrator. tests/contracts/test_authentication.py runs the Jobs in MLflow's image."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mlflow_operator import pod_scripts

NAME, PASSWORD = "MLFLOW_OPERATOR_AUTH_ADMIN", "MLFLOW_OPERATOR_AUTH_ADMIN_PASSWORD"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the Job's program."""
    monkeypatch.setitem(sys.modules, "psycopg2", ModuleType("psycopg2"))
    names: dict[str, Any] = {"__name__": "script"}
    exec(compile(pod_scripts.AUTHENTICATE, "script", "exec"), names)  # noqa: S102
    return names


@dataclass
class Store:
    """MLflow's store of users."""

    users: dict[str, tuple[str, bool]] = field(default_factory=dict)
    writes: list[dict[str, Any]] = field(default_factory=list)

    def has_user(self, username: str) -> bool:
        return username in self.users

    def get_user(self, username: str) -> SimpleNamespace:
        return SimpleNamespace(is_admin=self.users[username][1])

    def authenticate_user(self, username: str, password: str) -> bool:
        return self.users[username][0] == password

    def create_user(self, username: str, password: str, is_admin: bool) -> None:
        self.writes.append({"username": username, "password": password, "is_admin": is_admin})

    def update_user(self, username: str, **changes: Any) -> None:
        self.writes.append(changes)


@pytest.mark.parametrize(
    ("users", "done", "writes"),
    [
        ({}, "created", [{"username": "admin", "password": "right", "is_admin": True}]),
        ({"admin": ("right", True)}, "unchanged", []),
        ({"admin": ("wrong", True)}, "password reset", [{"password": "right"}]),
        ({"admin": ("right", False)}, "made administrator again", [{"is_admin": True}]),
        (
            {"admin": ("wrong", False)},
            "password reset and made administrator again",
            [{"password": "right", "is_admin": True}],
        ),
    ],
)
def test_only_what_differs_is_written(
    program: dict[str, Any], users: dict[str, tuple[str, bool]], done: str, writes: list[dict[str, Any]]
) -> None:
    """A password that matches is not rewritten: the pods would hash it again."""
    store = Store(users)
    assert program["ensure_administrator"](store, "admin", "right") == done
    assert store.writes == writes


@pytest.mark.parametrize("environ", [{}, {NAME: "admin"}, {PASSWORD: "a long password"}])
def test_server_without_authentication_has_no_administrator(
    program: dict[str, Any], environ: dict[str, str]
) -> None:
    """The migration then leaves the accounts alone."""
    assert program["administrator"](environ) is None


def test_administrator(program: dict[str, Any]) -> None:
    assert program["administrator"]({NAME: "admin", PASSWORD: "12 character"}) == ("admin", "12 character")


@pytest.mark.parametrize(
    ("password", "reason"),
    [("tooshort-pw", "has 11 characters"), ("", "0 characters"), ("password1234", "default")],
)
def test_password_that_mlflow_refuses(program: dict[str, Any], password: str, reason: str) -> None:
    """Before anything is migrated. The message does not contain it."""
    with pytest.raises(program["AccountError"], match=reason) as error:
        program["administrator"]({NAME: "admin", PASSWORD: password})
    assert not password or password not in str(error.value)


def test_job_says_which_variable_is_missing(program: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://database")
    monkeypatch.setenv(NAME, "admin")
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(SystemExit, match=f"{PASSWORD} is not set"):
        program["main"]()
