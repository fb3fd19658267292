"""MLflow's users and roles on a server with authentication, as its administrator creates them through MLflow's API."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import requests

from tests.e2e.kube import Kube, Object
from tests.e2e.secret_scan import SEARCHED_LABEL, in_base64
from tests.e2e.server import Server

REQUEST_TIMEOUT_SECONDS = 30.0
USERS, ROLES = "/api/2.0/mlflow/users", "/api/3.0/mlflow/roles"
ANY_USER_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
WORKSPACE = "default"
"""Workspace of all roles on a server without workspaces."""


class Login(NamedTuple):
    """A user name and a password."""

    username: str
    password: str

    @property
    def header(self) -> str:
        """Value of the header Authorization."""
        return f"Basic {in_base64(':'.join(self))}"

    def use(self, monkeypatch: pytest.MonkeyPatch) -> "Login":
        """Make MLflow's clients in this process log in as this user until the test ends."""
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", self.username)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", self.password)
        return self


@dataclass(frozen=True)
class Accounts:
    """Users and roles of the server at `url`, which `administrator` changes."""

    url: str
    administrator: Login

    def send(self, method: str, path: str, login: Login | None, **options: Any) -> requests.Response:
        """Send a request as this user, or without credentials."""
        return requests.request(
            method, f"{self.url}{path}", auth=login, timeout=REQUEST_TIMEOUT_SECONDS, **options
        )

    def call(self, method: str, path: str, body: Object, login: Login | None = None) -> Object:
        """Call MLflow's API as this user, by default as the administrator. Raises AssertionError unless it succeeds."""
        response = self.send(method, path, login or self.administrator, json=body)
        assert response.ok, f"{path}: {response.status_code} {response.text}"
        result: Object = response.json() if response.text else {}
        return result

    def create_user(self, username: str) -> Login:
        """Create a user with a random password and without roles."""
        login = Login(username, secrets.token_urlsafe(16))
        self.call("POST", f"{USERS}/create", {"username": username, "password": login.password})
        return login

    def create_role(self, name: str, grants: Iterable[tuple[str, str, str]], *members: Login) -> None:
        """Create a role and assign it. Each grant consists of a kind, an id or `*`, and a permission."""
        body = {"name": name, "workspace": WORKSPACE}
        role = self.call("POST", f"{ROLES}/create", body)["role"]["id"]
        for kind, pattern, permission in grants:
            grant = {"resource_type": kind, "resource_pattern": pattern, "permission": permission}
            self.call("POST", f"{ROLES}/permissions/add", {"role_id": role, **grant})
        for member in members:
            self.call("POST", f"{ROLES}/assign", {"role_id": role, "username": member.username})

    def status_code(self, login: Login | None) -> int:
        """Return the status code of a request of this user that every user may send."""
        return self.send("GET", ANY_USER_PATH, login).status_code


def accounts(server: Server) -> Accounts:
    """Return the accounts of a server, with its current administrator."""
    administrator = server.administrator
    assert administrator, f"{server.name} requires no credentials"
    return Accounts(server.url, Login(*administrator))


def record_password(kube: Kube, login: Login) -> None:
    """Store a password in a Secret, so that the search at the end of the run reports where else it occurs."""
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": f"login-{secrets.token_hex(4)}",
                "namespace": kube.namespace,
                "labels": {SEARCHED_LABEL: "true"},
            },
            "type": "kubernetes.io/basic-auth",
            "stringData": login._asdict(),
        }
    )
