"""`spec.auth.basic` on a server with two replicas that starts on an empty database, installed by its Helm chart.

The tests share one server: each starts with it Ready, and leaves it Ready with the password in the generated Secret.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import HttpCredentials, Page

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.e2e import callers, timeouts
from tests.e2e.accounts import ANY_USER_PATH, USERS, Accounts, Login, accounts, record_password
from tests.e2e.browser import browser
from tests.e2e.external_stores import secret
from tests.e2e.helm import SERVER_CHART, helm
from tests.e2e.kube import Kube, Object
from tests.e2e.load import SteadyLoad
from tests.e2e.mlflow_workload import Workload
from tests.e2e.pod_exec import files_with, status_codes
from tests.e2e.secret_scan import SEARCHED_LABEL
from tests.e2e.server import COMPONENT, Server, eventually, restart_count, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.test_doctor import doctor, findings, problems
from tests.e2e.test_garbage_collection import collect_garbage

GROUP = "authentication"

pytestmark = pytest.mark.start_early

SERVER_NAME = "tracking"
REPLICAS = 2
RARE_SCHEDULE = "0 0 29 2 *"
"""Runs only on February 29: the test starts a garbage collection by `kubectl create job`."""

JOB_TIMEOUT_SECONDS = 120.0
"""Until a Job has changed the administrator's account, its pod's start included."""

PAGE_MS = 60_000
CREATED, RESET = "AdministratorCreated", "AdministratorPasswordReset"


@pytest.fixture(scope="module")
def _installed_server(module_ns: Kube, _platform: Platform) -> Server:
    values = small_spec(
        replicas=REPLICAS,
        auth={"basic": {}},
        database=_platform.provision_spec(module_ns),
        artifacts=_platform.bucket_spec(module_ns, f"{module_ns.namespace}-{SERVER_NAME}"),
        garbageCollection={"schedule": RARE_SCHEDULE, "olderThan": "0s", "mode": "Delete"},
    )
    helm(module_ns, "install", SERVER_NAME, SERVER_CHART, values=values)
    return Server(module_ns, SERVER_NAME)


@pytest.fixture
def server(_installed_server: Server, module_evidence: None) -> Server:
    """The module's server, Ready."""
    return _installed_server.wait_ready()


@pytest.fixture
def administered(server: Server) -> Accounts:
    """The accounts of the module's server."""
    return accounts(server)


def create_user(administered: Accounts, server: Server, name: str) -> Login:
    """Create a user whose password the run searches for."""
    login = administered.create_user(f"{name}-{secrets.token_hex(4)}")
    record_password(server.kube, login)
    return login


def event_uids(server: Server, reason: str) -> set[str]:
    """Return the uids of the server's Events with this reason."""
    return {event["metadata"]["uid"] for event in server.kube.list("Event") if event["reason"] == reason}


@contextmanager
def reported(server: Server, reason: str) -> Iterator[None]:
    """Check that the operator publishes exactly one Event with this reason in the context, or soon after it."""
    before = event_uids(server, reason)
    yield
    eventually(
        f"an Event has the reason {reason}",
        lambda: event_uids(server, reason) - before,
        timeouts.STATUS_SECONDS,
    )
    assert len(event_uids(server, reason) - before) == 1


def wait_accepted(server: Server, login: Login) -> None:
    """Wait until the server accepts a password, and is Ready."""
    found = Accounts(server.url, login)
    eventually(
        f"the password of {login.username} is accepted",
        lambda: found.status_code(login) == requests.codes.ok,
        JOB_TIMEOUT_SECONDS,
    )
    server.wait_ready(timeouts.STATUS_SECONDS)


def check_on_every_pod(server: Server, login: Login, status: int) -> None:
    """Check the status of a request of this user to each pod."""
    found = status_codes(server, ANY_USER_PATH, *login)
    assert len(found) == REPLICAS
    assert set(found.values()) == {status}, found


def test_two_replicas_start_on_an_empty_database(server: Server) -> None:
    """Both pods start at once. One Job prepares all tables and the administrator before them, so none is restarted."""
    pods = server.pods("server")
    assert len(pods) == REPLICAS
    assert [restart_count(pod) for pod in pods] == [0, 0]
    components = [job["metadata"]["labels"][COMPONENT] for job in server.kube.list("Job")]
    assert components.count("migration") == 1
    assert not [name for name in components if name not in {"migration", "preflight"}]
    status = server.status["auth"]
    assert status["type"] == "Basic"
    assert status["passwordCheck"] == "Direct"
    assert status["schemaRevision"]
    assert server.status["adminSecretRef"] == {"name": f"{SERVER_NAME}-admin"}
    message = server.conditions()["AuthenticationReady"]["message"]
    assert f'"{SERVER_NAME}-admin"' in message


def test_only_the_health_check_needs_no_password(server: Server, administered: Accounts) -> None:
    """Probes have no password. The response tells browsers and clients to ask for one."""
    assert requests.get(f"{server.url}/health", timeout=10).status_code == requests.codes.ok
    refused = administered.send("GET", ANY_USER_PATH, None)
    assert refused.status_code == requests.codes.unauthorized
    assert refused.headers["WWW-Authenticate"].startswith("Basic")


def test_administrator_in_the_secret_can_use_mlflow(
    server: Server, administered: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain client with the values of the Secret: runs, artifacts, and a registered model that is loaded."""
    stored = server.kube.require("Secret", f"{SERVER_NAME}-admin")
    assert stored["type"] == "kubernetes.io/basic-auth"
    administered.administrator.use(monkeypatch)
    workload = Workload(server.url)
    workload.check_data(workload.log_data("administered"))


def test_pods_do_not_contain_the_administrators_password(server: Server, administered: Accounts) -> None:
    """Neither their manifests, not even as a reference, nor the processes and files in them."""
    username, password = administered.administrator
    objects = [server.kube.require("Deployment", server.names.deployment), *server.pods("server")]
    for text in (password, f"{SERVER_NAME}-admin"):
        assert not [obj["metadata"]["name"] for obj in objects if text in json.dumps(obj)]
    # The same search must find what the pods are known to contain.
    found = files_with(server, f"MLFLOW_OPERATOR_AUTH_ADMIN={username}")
    assert any(path.endswith("/environ") for path in found)
    assert not files_with(server, password)


def test_callers_get_the_status_of_their_role(server: Server, administered: Accounts) -> None:
    """Each route for everyone from anonymous callers to the administrator, with two replicas."""
    scene = callers.prepare(administered)
    for login in filter(None, scene.logins.values()):
        record_password(server.kube, login)
    assert scene.statuses() == callers.expected()


@pytest.mark.parametrize("path", [ANY_USER_PATH, "/", "/gateway/mlflow/v1/models"])
def test_other_credentials_than_a_password_are_refused(administered: Accounts, path: str) -> None:
    """On each of the web frameworks, and as simply as missing ones."""
    for credentials in ("Bearer token", "Basic", "Basic !", "Basic dXNlcg==", "Negotiate dXNlcjpwYXNz"):
        response = administered.send("GET", path, None, headers={"Authorization": credentials})
        assert response.status_code == requests.codes.unauthorized, credentials


@pytest.mark.parametrize("path", ["/signup/", "//signup", "/%73ignup"])
def test_spellings_of_a_closed_path_are_closed(administered: Accounts, path: str) -> None:
    """The routers of MLflow treat some of them alike."""
    host = urlsplit(administered.url).netloc
    headers = {"Authorization": administered.administrator.header}
    # Clients like requests would normalize the path.
    with closing(HTTPConnection(host, timeout=30)) as connection:
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == requests.codes.not_found


def test_lists_hide_what_the_user_may_not_read(administered: Accounts) -> None:
    """Any user may call these routes."""
    scene = callers.prepare(administered)
    readers = {str(route): scene.readers(route) for route in callers.LISTS}
    assert readers == {str(route): {"user", "administrator"} for route in callers.LISTS}


def test_changed_secret_changes_the_administrators_password(server: Server, administered: Accounts) -> None:
    """No pod is restarted, no pod accepts the old password, and an Event reports it."""
    old, pods = administered.administrator, {pod["metadata"]["uid"] for pod in server.pods("server")}
    new = Login(old.username, secrets.token_urlsafe(20))
    check_on_every_pod(server, old, requests.codes.ok)
    with reported(server, RESET):
        server.kube.patch("Secret", f"{SERVER_NAME}-admin", {"stringData": {"password": new.password}})
        server.trigger_reconcile()
        wait_accepted(server, new)
    check_on_every_pod(server, old, requests.codes.unauthorized)
    check_on_every_pod(server, new, requests.codes.ok)
    assert {pod["metadata"]["uid"] for pod in server.pods("server")} == pods


def test_password_in_another_secret_is_used(server: Server, administered: Accounts) -> None:
    """The user manages this Secret. Without the field, the generated password is valid again."""
    generated = administered.administrator
    own = Login(generated.username, secrets.token_urlsafe(20))
    manifest = secret("team-administrator", word=own.password)
    manifest["metadata"]["labels"] = {SEARCHED_LABEL: "true"}
    server.kube.apply(manifest)
    ref = {"name": "team-administrator", "key": "word"}
    server.patch_spec(auth={"admin": {"passwordSecretRef": ref}})
    try:
        wait_accepted(server, own)
        assert administered.status_code(generated) == requests.codes.unauthorized
        assert server.status["adminSecretRef"] == {"name": "team-administrator"}
    finally:
        server.patch_spec(auth={"admin": None})
        wait_accepted(server, generated)
    assert administered.status_code(own) == requests.codes.unauthorized


def test_password_changed_in_mlflow_is_reset(server: Server, administered: Accounts) -> None:
    """The Secret is the source of truth for the administrator."""
    administrator = administered.administrator
    other = Login(administrator.username, secrets.token_urlsafe(20))
    body = {**other._asdict(), "current_password": administrator.password}
    with reported(server, RESET):
        administered.call("PATCH", f"{USERS}/update-password", body)
        assert administered.status_code(administrator) == requests.codes.unauthorized
        server.trigger_reconcile()
        wait_accepted(server, administrator)
    check_on_every_pod(server, other, requests.codes.unauthorized)


def test_deleted_administrator_is_created_again(server: Server, administered: Accounts) -> None:
    """Another administrator can delete the account, but the operator needs it."""
    administrator, second = administered.administrator, create_user(administered, server, "second")
    body: Object = {"username": second.username, "is_admin": True}
    administered.call("PATCH", f"{USERS}/update-admin", body)
    with reported(server, CREATED):
        administered.call("DELETE", f"{USERS}/delete", {"username": administrator.username}, second)
        assert administered.status_code(administrator) == requests.codes.unauthorized
        server.trigger_reconcile()
        wait_accepted(server, administrator)
    administered.call("DELETE", f"{USERS}/delete", {"username": second.username})
    assert administered.status_code(second) == requests.codes.unauthorized


def test_rotation_of_the_password_fails_no_request_of_other_users(
    server: Server, administered: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login to the database and the key of the bucket are rotated, too."""
    old = administered.administrator
    create_user(administered, server, "analyst").use(monkeypatch)
    with SteadyLoad(server.url, monkeypatch) as steady_load:
        server.rotate_credentials()
        new = accounts(server).administrator
        wait_accepted(server, new)
    assert steady_load.errors == []
    assert steady_load.succeeded
    assert new.username == old.username
    assert new.password != old.password
    check_on_every_pod(server, old, requests.codes.unauthorized)


def test_helm_test_passes(server: Server, administered: Accounts) -> None:
    """The test pod logs in as the administrator, and its log does not contain the password."""
    ns = server.kube
    output = ns.run("sh", "-c", f"helm -n {ns.namespace} test {SERVER_NAME} 2>&1")
    assert "ok  artifact read back, content identical" in output
    assert "Phase:          Succeeded" in output
    assert administered.administrator.password not in output


def test_doctor_finds_no_problem(server: Server, administered: Accounts) -> None:
    """Its checks of the URLs need no password."""
    done = doctor(server.kube, "-n", server.kube.namespace, "-o", "json")
    assert not problems(findings(done.stdout))
    assert done.returncode == 0, done.stderr
    assert administered.administrator.password not in done.stdout


def test_garbage_collection_deletes_artifacts(
    server: Server, administered: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Job deletes artifacts through the server, as the administrator."""
    administered.administrator.use(monkeypatch)
    workload = Workload(server.url)
    run_id = workload.create_run()
    artifact = f"{workload.client.get_run(run_id).info.artifact_uri}/file.bin".partition(":/")[2]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{artifact.lstrip('/')}"
    workload.upload(run_id, "file.bin", 1024)
    assert administered.send("GET", path, administered.administrator).ok
    workload.client.delete_run(run_id)
    assert collect_garbage(server, "by-hand")["deletedRuns"] >= 1
    assert administered.send("GET", path, administered.administrator).status_code == requests.codes.not_found


@contextmanager
def page_of(kube: Kube, login: Login | None) -> Iterator[Page]:
    """A browser page whose user enters this login when the browser asks for it."""
    credentials: HttpCredentials | None = (
        {"username": login.username, "password": login.password} if login else None
    )
    with browser(kube) as chromium:
        context = chromium.new_context(viewport={"width": 1280, "height": 720}, http_credentials=credentials)
        window = context.new_page()
        window.set_default_timeout(PAGE_MS)
        yield window


def test_browser_shows_a_run_and_an_artifact_after_login(
    server: Server, administered: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser asks for user name and password, and sends them with each request of the page."""
    login = create_user(administered, server, "reader").use(monkeypatch)
    workload = Workload(server.url)
    run_id, text = workload.create_run(), f"notes-{secrets.token_hex(4)}"
    info = workload.client.get_run(run_id).info
    workload.client.log_text(run_id, text, "notes.txt")
    run_url = f"{server.url}/#/experiments/{info.experiment_id}/runs/{run_id}"
    with page_of(server.kube, login) as page:
        page.goto(run_url)
        page.get_by_role("heading", name=str(info.run_name)).wait_for()
        page.goto(f"{run_url}/artifacts/notes.txt")
        page.get_by_text(text).wait_for()
    # Without a user who answers, the browser's question for a password ends with this error.
    with page_of(server.kube, None) as page, pytest.raises(BrowserError, match="INVALID_AUTH_CREDENTIALS"):
        page.goto(server.url)


def test_status_counts_users(server: Server, administered: Accounts) -> None:
    """After the next resync at the latest, and with the version's revision of the tables."""
    users = len(administered.call("GET", f"{USERS}/list", {})["users"])
    server.trigger_reconcile()
    eventually(
        f"status.auth.users is {users}",
        lambda: server.status["auth"].get("users") == users,
        timeouts.STATUS_SECONDS,
    )
    assert server.status["version"] == DEFAULT_VERSION
