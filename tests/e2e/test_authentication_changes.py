"""Servers of different versions and sizes with authentication, and servers that begin or stop to require it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest
import requests

from mlflow_operator.model import container_parts
from mlflow_operator.model.authentication import TYPE_ENV
from mlflow_operator.model.versions import DEFAULT_VERSION, FAST_PATH_VERSIONS
from tests.e2e import callers, timeouts
from tests.e2e.accounts import ANY_USER_PATH, Accounts, accounts, record_password
from tests.e2e.callers import Scene, Statuses
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import COMPONENT, Server, eventually, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.test_encryption_keys import embedded_store

JOB_TIMEOUT_SECONDS = 120.0
UPGRADE_TIMEOUT_SECONDS = 2 * timeouts.READY_SECONDS
OK, UNAUTHORIZED = int(requests.codes.ok), int(requests.codes.unauthorized)
EXPORTER = {"name": "MLFLOW_EXPOSE_PROMETHEUS", "value": f"{container_parts.HOME}/metrics"}
"""Variable with which the server does not use the fast path."""


def start(kube: Kube, platform: Platform, **spec: Any) -> Server:
    """Create a server on an empty database of the platform, and wait until it is Ready."""
    stores = {
        "database": platform.provision_spec(kube),
        "artifacts": platform.bucket_spec(kube, f"{kube.namespace}-tracking"),
    }
    return Server(kube).apply(small_spec(**stores, **spec)).wait_ready(UPGRADE_TIMEOUT_SECONDS)


def prepare(server: Server) -> Scene:
    """Create callers with roles, whose passwords the run searches for."""
    scene = callers.prepare(accounts(server))
    for login in filter(None, scene.logins.values()):
        record_password(server.kube, login)
    return scene


@pytest.mark.long_running(
    reason="a server for each; test_authentication checks the same routes on a server with two replicas"
)
@pytest.mark.parametrize(
    ("spec", "differences"),
    [
        pytest.param({"workers": 1}, {}, id="one worker"),
        pytest.param({"workers": 4}, {}, id="four workers"),
        pytest.param({"env": [EXPORTER]}, callers.WITH_EXPORTER, id="exporter"),
    ],
)
def test_callers_get_the_status_of_their_role(
    ns: Kube, platform: Platform, spec: Object, differences: dict[str, Statuses]
) -> None:
    """With one and with several processes, and without the fast path, where Prometheus needs no password."""
    server = start(ns, platform, auth={}, **spec)
    assert bool(server.status.get("fastPathFallback")) == ("env" in spec)
    assert prepare(server).statuses() == callers.expected(differences)


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs images of earlier versions; tests/contracts runs the pods' application in each of them"
)
@pytest.mark.parametrize("version", ["3.14.0", "3.16.1", "3.17.2"])
def test_users_and_roles_survive_an_upgrade(
    ns: Kube, platform: Platform, earlier_images: dict[str, str], version: str
) -> None:
    """Every caller gets the status of its role before and after it, with the same password."""
    server = start(ns, platform, auth={}, version=version, image=earlier_images[version])
    check = "Direct" if version in FAST_PATH_VERSIONS else "Cached"
    assert server.status["auth"]["passwordCheck"] == check
    scene, before = prepare(server), server.administrator
    assert scene.statuses() == callers.expected(callers.DIFFERENCES.get(version))
    server.patch_spec(version=DEFAULT_VERSION, image=None)
    server.wait_ready(UPGRADE_TIMEOUT_SECONDS)
    assert server.status["version"] == DEFAULT_VERSION
    assert server.status["auth"]["passwordCheck"] == "Direct"
    assert server.administrator == before
    assert scene.statuses() == callers.expected()


@dataclass
class AnonymousClient:
    """Sends requests without credentials for the duration of the context; `statuses` are in their order."""

    url: str
    statuses: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "AnonymousClient":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(timeouts.POLL_INTERVAL_SECONDS):
            try:
                self.statuses.append(requests.get(self.url + ANY_USER_PATH, timeout=10).status_code)
            except requests.RequestException as error:
                self.errors.append(repr(error))

    def wait_for(self, status: int) -> None:
        """Wait until the last response has this status."""
        eventually(
            f"the status is {status}",
            lambda: self.statuses[-1:] == [status],
            timeouts.ROLLOUT_SECONDS,
        )


@contextmanager
def served_without_interruption(server: Server, before: int, after: int) -> Iterator[None]:
    """Check that each anonymous request in the context is answered: with status `before`, and at last with `after`."""
    with AnonymousClient(server.url) as client:
        client.wait_for(before)
        yield
        client.wait_for(after)
    assert client.errors == []
    # While pods are replaced, an old one may still answer after a new one.
    assert set(client.statuses) == {before, after}


def event_messages(server: Server, reason: str) -> list[str]:
    """Return the messages of the server's Events with this reason."""
    return [event["message"] for event in server.kube.list("Event") if event["reason"] == reason]


def wait_type(server: Server, value: str | None) -> None:
    """Wait until the status has this type of authentication, all other pods are gone, and the server is Ready."""

    def is_complete() -> bool:
        pods = [pod for pod in server.running_pods() if pod["metadata"]["labels"][COMPONENT] == "server"]
        environments = [pod["spec"]["containers"][0]["env"] for pod in pods]
        required = {any(variable["name"] == TYPE_ENV for variable in env) for env in environments}
        recorded = (server.status.get("auth") or {}).get("type")
        return recorded == value and required == {value is not None}

    eventually(f"authentication of all pods is {value}", is_complete, timeouts.ROLLOUT_SECONDS)
    server.wait_ready()


@pytest.mark.long_running(
    reason="the server's pods are replaced three times; tests/unit/components/authentication simulates the steps"
)
def test_authentication_is_enabled_and_removed_on_a_server_with_data(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers all the time, Events report both changes, and no data is lost."""
    server = Server(ns).apply(small_spec(**platform.stores_spec(ns))).wait_ready()
    workload = Workload(server.url)
    data = workload.log_data("before")
    assert "AuthenticationReady" not in server.conditions()
    assert "auth" not in server.status

    with served_without_interruption(server, OK, UNAUTHORIZED):
        server.patch_spec(auth={})
        wait_type(server, "Basic")
    (message,) = event_messages(server, "AuthenticationEnabled")
    assert "refuses clients without credentials" in message
    condition = server.wait_for("AuthenticationReady")
    assert "users see only what their roles grant" in condition["message"]
    accounts(server).administrator.use(monkeypatch)
    workload.check_data(data)
    after = workload.log_data("after")
    password = server.administrator
    check_user_sees_nothing(server)

    with served_without_interruption(server, UNAUTHORIZED, OK):
        server.patch_spec(auth=None)
        wait_type(server, None)
    assert len(event_messages(server, "AuthenticationDisabled")) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    workload.check_data(data)
    workload.check_data(after)
    assert "AuthenticationReady" not in server.conditions()

    server.patch_spec(auth={})
    wait_type(server, "Basic")
    assert server.administrator == password
    accounts(server).administrator.use(monkeypatch)
    workload.check_data(after)


def check_user_sees_nothing(server: Server) -> None:
    """A new user has no role, so existing experiments and models are not visible."""
    found = accounts(server)
    login = found.create_user("newcomer")
    record_password(server.kube, login)
    for path, key in (("experiments", "experiments"), ("registered-models", "registered_models")):
        url = f"/api/2.0/mlflow/{path}/search?max_results=100"
        assert found.call("GET", url, {}).get(key), "the administrator sees all"
        assert not found.call("GET", url, {}, login).get(key)


@pytest.mark.long_running(
    reason="two servers with embedded stores; test_embedded restores a backup, and test_authentication resets passwords"
)
def test_restored_server_has_the_users_and_an_administrator_of_its_own(
    ns: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users keep their passwords. The administrator has the password in the Secret of the new server."""
    source = Server(ns).apply(small_spec(auth={}, backup={"schedule": "0 0 29 2 *"})).wait_ready()
    found = accounts(source)
    user = found.create_user("survivor")
    record_password(ns, user)
    user.use(monkeypatch)
    run_id = Workload(source.url).create_run()
    ns.kubectl("create", "job", "--from=cronjob/tracking-backup", "by-hand")
    eventually(
        "the backup is recorded", lambda: source.status.get("backup", {}).get("lastID"), JOB_TIMEOUT_SECONDS
    )

    restored = Server(ns, "again")
    restore = {"serverName": source.name, "s3": embedded_store(source)}
    restored.apply(small_spec(auth={}, restoreFrom=restore)).wait_ready()
    assert Workload(restored.url).client.get_run(run_id).info.run_id == run_id
    new = accounts(restored)
    assert new.administrator.password != found.administrator.password
    assert new.status_code(new.administrator) == OK
    assert new.status_code(found.administrator) == UNAUTHORIZED
    assert Accounts(source.url, found.administrator).status_code(found.administrator) == OK
