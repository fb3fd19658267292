"""A server with authentication decides like MLflow's own basic-auth, in MLflow's image and with a real Postgres."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.model import plugins
from mlflow_operator.model.release import version_key
from tests.cluster import registry
from tests.cluster.shell import Shell
from tests.cluster.substitute_images import EARLIER_MLFLOW
from tests.contracts import auth_servers
from tests.contracts.auth_servers import ADMIN, ADMIN_PASSWORD, Container, Deployment, Login
from tests.contracts.postgres import Instance
from tests.contracts.test_launcher import EARLIER_IMAGES, MLFLOW, PINS

ADMINISTRATOR: Login = (ADMIN, ADMIN_PASSWORD)
OWNER: Login = ("bob@example.com", "bob-password-1")
OTHER: Login = ("carol", "carol-password-1")
CALLERS: dict[str, Login] = {
    "anonymous": None,
    "wrong": ("bob@example.com", "wrong-password"),
    "unknown": ("mallory", "wrong-password"),
    "other": OTHER,
    "owner": OWNER,
    "admin": ADMINISTRATOR,
}
WITHOUT_FAST_PATH = [
    reference
    for name, reference in PINS.items()
    if name.startswith(EARLIER_MLFLOW)
    and (3, 14) <= version_key(reference.rpartition(":v")[2].removesuffix("-full")) < (3, 17)
]
"""Images of releases that check passwords themselves."""
API, API_3 = "/api/2.0/mlflow", "/ajax-api/3.0/mlflow"


@dataclass(frozen=True)
class Accounts:
    """An experiment of OWNER, a run in it, and a role by which OTHER reads another experiment."""

    experiment: str
    run: str
    readable: str


@dataclass(frozen=True)
class Request:
    """A request of the matrix. `expected` are the statuses of the callers in the order of CALLERS.

    `is_closed`: MLflow's own application answers otherwise, on purpose.
    """

    method: str
    path: str
    expected: tuple[int, ...]
    body: object = None
    headers: tuple[tuple[str, str], ...] = ()
    is_closed: bool = False


def user(owner: int, other: int, admin: int) -> tuple[int, ...]:
    """Statuses of a path that needs a password."""
    return (401, 401, 401, other, owner, admin)


def everyone(status: int) -> tuple[int, ...]:
    """The same status for all callers."""
    return (status,) * len(CALLERS)


def requests(accounts: Accounts) -> list[Request]:
    """All kinds of paths."""
    experiment, run, readable = accounts.experiment, accounts.run, accounts.readable
    otel = (("Content-Type", "application/x-protobuf"), ("X-Mlflow-Experiment-Id", experiment))
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/a.txt"
    search = {"experiment_ids": [experiment], "max_results": 5}
    rename, rename_readable = (
        {"experiment_id": each, "new_name": f"new {each}"} for each in (experiment, readable)
    )
    metric = {"run_id": run, "key": "a", "value": 1, "timestamp": 1}
    graphql = {
        "query": f'{{mlflowGetExperiment(input: {{experimentId: "{experiment}"}}) {{apiError {{code}}}}}}'
    }
    return [
        Request("GET", "/health", everyone(200)),
        Request("GET", "/static-files/no-such-file", everyone(404)),
        Request("GET", "/api/3.0/mlflow/server-info", everyone(200)),
        Request("GET", "/", user(200, 200, 200)),
        Request("GET", "/version", user(200, 200, 200)),
        Request("GET", f"{API}/experiments/get?experiment_id={experiment}", user(200, 403, 200)),
        Request("GET", f"{API}/experiments/get?experiment_id={readable}", user(403, 200, 200)),
        Request("GET", f"/ajax-{API[1:]}/experiments/get?experiment_id={experiment}", user(200, 403, 200)),
        Request("POST", f"{API}/experiments/update", user(200, 403, 200), rename),
        Request("POST", f"{API}/experiments/update", user(403, 403, 200), rename_readable),
        Request("POST", f"{API}/runs/search", user(200, 200, 200), search),
        Request("POST", f"{API}/runs/log-metric", user(200, 403, 200), metric),
        Request("POST", f"{API}/runs/log-metric", user(403, 403, 404), metric | {"run_id": "f" * 32}),
        Request("GET", f"{API}/runs/get?run_id={run}", user(200, 403, 200)),
        Request("PUT", artifact, user(200, 403, 200), b"text"),
        Request("GET", artifact, user(200, 403, 200)),
        Request("GET", f"/api/2.0/mlflow-artifacts/artifacts?path={experiment}/{run}/artifacts", user(200, 403, 200)),
        Request("GET", f"{API}/artifacts/list?run_id={run}", user(200, 403, 200)),
        Request("POST", "/gateway/none/mlflow/invocations", user(403, 403, 404), {}),
        Request("POST", "/gateway/mlflow/v1/chat/completions", user(403, 403, 404), {"model": "none"}),
        Request("POST", "/v1/traces", user(400, 403, 400), b"\xff", otel),
        Request("GET", "/ajax-api/3.0/jobs/none", user(403, 403, 404)),
        Request("POST", "/ajax-api/3.0/jobs/search", user(200, 200, 200), {}),
        Request("POST", "/ajax-api/3.0/jobs/", everyone(404), {"job_name": "none", "params": {}}, is_closed=True),
        Request("GET", f"{API}/webhooks", user(403, 403, 200)),
        Request("POST", "/graphql", user(200, 200, 200), graphql),
        Request("GET", "/api/3.0/mlflow/mcp-servers", user(200, 200, 200)),
        Request("GET", f"{API_3}/assistant/config", everyone(404), is_closed=True),
        Request("PUT", f"{API_3}/assistant/config", everyone(404), {}, is_closed=True),
        Request("GET", "/metrics", everyone(404), is_closed=True),
        Request("GET", "/signup", everyone(404), is_closed=True),
        Request("GET", "//signup", everyone(404), is_closed=True),
        Request("POST", f"{API}/users/create-ui", everyone(404), {}, is_closed=True),
        Request("GET", f"{API}/users/list", user(200, 200, 200)),
        Request("GET", f"{API}/users/get?username=carol", user(403, 200, 200)),
        Request("POST", f"{API}/users/create", user(403, 403, 400), {"username": "x", "password": "short"}),
        Request("PATCH", f"{API}/users/update-admin", user(403, 403, 404), {"username": "mallory", "is_admin": True}),
        Request("DELETE", f"{API}/users/delete", user(403, 403, 404), {"username": "mallory"}),
        Request("GET", "/api/3.0/mlflow/roles/list?workspace=default", user(200, 200, 200)),
        Request("GET", f"{API}/no/such/path", user(403, 403, 404)),
    ]  # fmt: skip


def create_accounts(container: Container) -> Accounts:
    """Create two users. Each request must succeed."""

    def call(path: str, login: Login, body: object) -> dict[str, object]:
        response = container.request("POST", path, login, body)
        assert response.status == 200, (path, response)
        return response.json()

    for login in (OWNER, OTHER):
        assert login
        call(f"{API}/users/create", ADMINISTRATOR, {"username": login[0], "password": login[1]})
    experiment = str(call(f"{API}/experiments/create", OWNER, {"name": "b"})["experiment_id"])
    readable = str(call(f"{API}/experiments/create", ADMINISTRATOR, {"name": "r"})["experiment_id"])
    run: dict[str, dict[str, str]] = call(f"{API}/runs/create", OWNER, {"experiment_id": experiment})["run"]  # type: ignore[assignment]
    grant = {
        "username": "carol",
        "resource_type": "experiment",
        "resource_id": readable,
        "permission": "READ",
    }
    call("/api/3.0/mlflow/users/permissions/grant", ADMINISTRATOR, grant)
    return Accounts(experiment, run["info"]["run_id"], readable)


@pytest.fixture(scope="module")
def installation(
    instance: Instance, test_images: None, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """A migrated database with an administrator."""
    created = auth_servers.create(instance, MLFLOW, "authentication", tmp_path_factory.mktemp("auth"))
    assert f'administrator "{ADMIN}": created' in created.migrate()
    return created


@pytest.fixture(scope="module")
def container(installation: Deployment) -> Iterator[Container]:
    """A server with four workers."""
    with installation.start(workers=4) as running:
        yield running


@pytest.fixture(scope="module")
def accounts(container: Container) -> Accounts:
    """Two users."""
    return create_accounts(container)


def statuses(container: Container, request: Request) -> tuple[int, ...]:
    """Status for each caller."""
    return tuple(
        container.request(request.method, request.path, login, request.body, dict(request.headers)).status
        for login in CALLERS.values()
    )


def compare(containers: list[Container], stock: Container, accounts: Accounts) -> dict[str, object]:
    """The requests that one of the servers does not answer like MLflow's own."""
    differences: dict[str, object] = {}
    for request in requests(accounts):
        expected = request.expected if request.is_closed else statuses(stock, request)
        for container in containers:
            answered = statuses(container, request)
            if answered != expected:
                differences[f"{request.method} {request.path} {request.body}"] = (answered, expected)
    return differences


def test_statuses_equal_those_of_mlflow(
    installation: Deployment, container: Container, accounts: Accounts
) -> None:
    """For each kind of path and caller, with one and with four workers, and without the fast path."""
    wrong = {
        f"{request.method} {request.path}": (answered, request.expected)
        for request in requests(accounts)
        if (answered := statuses(container, request)) != request.expected
    }
    assert not wrong
    with (
        installation.start(stock=True) as stock,
        installation.start() as one_worker,
        installation.start(app=plugins.AUTH_APP) as without_fast_path,
    ):
        assert not compare([container, one_worker, without_fast_path], stock, accounts)
        for running in (container, one_worker, without_fast_path):
            assert_no_secret(running.log())


def assert_no_secret(log: str) -> None:
    """Neither a password nor the hash of one is in a log."""
    for login in CALLERS.values():
        assert not login or login[1] not in log
    for text in ("scrypt:", "pbkdf2:", auth_servers.DATABASE_PASSWORD, "p%254%40ss", "p%4%40ss"):
        assert text not in log


@pytest.mark.parametrize(
    ("image", "app"),
    [(image, "") for image in EARLIER_IMAGES.values()]
    + [(image, plugins.AUTH_CACHE_APP) for image in (*WITHOUT_FAST_PATH, MLFLOW)],
)
@pytest.mark.long_running(reason="needs images of earlier versions; the default version runs in `make test`")
def test_statuses_equal_those_of_other_versions(
    instance: Instance, test_images: None, tmp_path: Path, image: str, app: str
) -> None:
    """Also with the application for versions whose internals are not known."""
    shell = Shell(tmp_path / "log")
    if not registry.has_docker_image(shell, image):
        registry.pull(shell, image)
    (tmp_path / "files").mkdir()
    name = "auth_" + re.sub(r"\W", "_", image.rpartition(":")[2]) + ("_cache" if app else "")
    earlier = auth_servers.create(instance, image, name, tmp_path / "files")
    earlier.migrate()
    with earlier.start(app=app) as running, earlier.start(stock=True) as stock:
        accounts = create_accounts(running)
        assert not compare([running], stock, accounts)
        assert_no_secret(running.log())


def on_all_workers(container: Container, login: Login) -> set[int]:
    """Statuses of so many requests, each on its own connection, that every worker answers some."""
    path = f"{API}/users/current"
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda _: container.request("GET", path, login).status, range(64)))


def test_changed_password_and_deleted_user_are_refused_at_once(
    container: Container, accounts: Accounts
) -> None:
    """By all workers, although they knew the password."""
    first, second = ("dave", "dave-password-1"), ("dave", "dave-password-2")
    create = {"username": first[0], "password": first[1]}
    assert container.request("POST", f"{API}/users/create", ADMINISTRATOR, create).status == 200
    assert on_all_workers(container, first) == {200}
    change = {"username": "dave", "password": second[1], "current_password": "not this one"}
    assert container.request("PATCH", f"{API}/users/update-password", first, change).status == 400
    change["current_password"] = first[1]
    assert container.request("PATCH", f"{API}/users/update-password", first, change).status == 200
    assert on_all_workers(container, first) == {401}
    assert on_all_workers(container, second) == {200}
    deletion = {"username": "dave"}
    assert container.request("DELETE", f"{API}/users/delete", ADMINISTRATOR, deletion).status == 200
    assert on_all_workers(container, second) == {401}


def test_wrong_passwords_do_not_stop_known_users(container: Container, accounts: Accounts) -> None:
    """Fifty at once. Those for which there is no time are to be repeated later."""
    assert on_all_workers(container, OWNER) == {200}
    done = threading.Event()

    def attack(number: int) -> int:
        path = "/api/2.0/mlflow-artifacts/artifacts?path=1" if number % 2 else "/version"
        return container.request("GET", path, ("bob@example.com", f"guess {number}")).status

    def use() -> set[int]:
        answered = set()
        while not done.is_set():
            answered.add(container.request("GET", "/health").status)
            answered.add(
                container.request("POST", f"{API}/runs/search", OWNER, {"experiment_ids": ["0"]}).status
            )
        return answered

    with ThreadPoolExecutor(52) as pool:
        users = [pool.submit(use) for _ in range(2)]
        refused = set(pool.map(attack, range(50)))
        done.set()
        assert [future.result() for future in users] == [{200}, {200}]
    assert refused <= {401, 429}
    assert 401 in refused


def test_password_check_is_one_query(instance: Instance, container: Container, accounts: Accounts) -> None:
    """Counted by Postgres, which logs every statement."""
    for path in (
        f"{API}/experiments/get?experiment_id={accounts.experiment}",
        "/version",
        f"{API}/users/current",
    ):
        assert on_all_workers(container, OWNER) == {200}
        before = instance.log().count("users.password_hash")
        assert container.request("GET", path, OWNER).status == 200
        assert instance.log().count("users.password_hash") == before + 1, path


def test_model_does_not_show_artifacts_of_another_user(installation: Deployment, accounts: Accounts) -> None:
    """A user who may read a model may read all files in the source of its version. The store need not answer here."""
    run = f"s3://bucket/team/{accounts.experiment}/{accounts.run}/artifacts"
    with installation.start(artifacts="s3://bucket/team") as container:
        assert (
            container.request("POST", f"{API}/registered-models/create", OTHER, {"name": "o"}).status == 200
        )
        for source, status in ((run, 400), (f"{run}/model", 400), ("s3://bucket/other", 200)):
            version = {"name": "o", "source": source}
            response = container.request("POST", f"{API}/model-versions/create", OTHER, version)
            assert response.status == status, (source, response)
        version = {"name": "o", "source": run, "run_id": accounts.run}
        assert container.request("POST", f"{API}/model-versions/create", OTHER, version).status == 403


def test_administrator_is_reset_and_created_again(
    instance: Instance, installation: Deployment, container: Container, accounts: Accounts
) -> None:
    """By the Job. A server that runs accepts the new password at once."""
    authenticate = pod_scripts.AUTHENTICATE
    assert f'administrator "{ADMIN}": unchanged' in installation.migrate(authenticate)
    output = installation.migrate(authenticate, "another-password")
    assert f'administrator "{ADMIN}": password reset' in output
    assert on_all_workers(container, ADMINISTRATOR) == {401}
    assert on_all_workers(container, (ADMIN, "another-password")) == {200}
    instance.query("UPDATE users SET is_admin = false WHERE username = 'admin'", database="authentication")
    output += installation.migrate(authenticate)
    assert f'administrator "{ADMIN}": password reset and made administrator again' in output
    instance.query("DELETE FROM user_role_assignments", database="authentication")
    instance.query("DELETE FROM users WHERE username = 'admin'", database="authentication")
    output += installation.migrate()
    assert f'administrator "{ADMIN}": created' in output
    assert on_all_workers(container, ADMINISTRATOR) == {200}
    assert "another-password" not in output
    assert_no_secret(output)
