"""Servers with authentication in MLflow's image, beside MLflow's own, on one database."""

import base64
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from mlflow_operator import pod_scripts
from mlflow_operator.model import deployment, plugins
from mlflow_operator.model.server import BasicAuth, SecretKey
from tests.apiserver.processes import free_port
from tests.containers import docker
from tests.contracts.postgres import Instance
from tests.contracts.test_preflight import CREATE_DATABASE, run
from tests.unit.servers import server

DATABASE_PASSWORD = "p%4@ss/word"
ADMIN, ADMIN_PASSWORD = "admin", "admin-password"
READY_TIMEOUT_SECONDS = 180
PUBLIC_ENVIRONMENT = {
    "MLFLOW_OPERATOR_AUTH": "basic",
    "MLFLOW_OPERATOR_AUTH_ADMIN": ADMIN,
    "MLFLOW_OPERATOR_AUTH_DEFAULT_PERMISSION": "NO_PERMISSIONS",
}
STOCK_CONFIG = "\n".join(
    (
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        "database_uri = {}",
        "admin_username = {}",
        "admin_password =",
        "",
    )
)

Login = tuple[str, str] | None


@dataclass(frozen=True)
class Response:
    """Response of a server."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body."""
        content: dict[str, object] = json.loads(self.body)
        return content


@dataclass(frozen=True)
class Container:
    """A running server."""

    name: str
    port: int

    def request(
        self,
        method: str,
        path: str,
        login: Login = None,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request on a new connection."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        all_headers = {"Content-Type": "application/json", **(headers or {})}
        if login:
            all_headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, content, all_headers)
        answer = connection.getresponse()
        response = Response(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
        connection.close()
        return response

    def log(self) -> str:
        """What it has logged."""
        return docker("logs", self.name)


@dataclass
class Deployment:
    """A database with accounts, and the image of its servers."""

    image: str
    uri: str
    folder: Path

    def migrate(self, script: str = pod_scripts.MIGRATE, password: str = ADMIN_PASSWORD) -> str:
        """Run the migration Job; return its output."""
        environment = {
            "MLFLOW_BACKEND_STORE_URI": self.uri,
            "MLFLOW_OPERATOR_AUTH_ADMIN": ADMIN,
            "MLFLOW_OPERATOR_AUTH_ADMIN_PASSWORD": password,
        }
        code, _, output = run(self.image, script, environment)
        assert code == 0, output
        return output

    @contextmanager
    def start(
        self, *, workers: int = 1, app: str = "", stock: bool = False, artifacts: str = "/tmp/artifacts"
    ) -> Iterator[Container]:
        """Run a server with our application, which is `app` or that of a pod, or with MLflow's own."""
        resource = replace(server(), auth=BasicAuth(ADMIN, SecretKey("a", "b", ""), True, "NO_PERMISSIONS"))
        command = ["mlflow", "server", "--app-name", "basic-auth"]
        if not stock:
            if app:
                resource = replace(resource, fast_path=False)
            pod = deployment.deployment(resource, "")["spec"]["template"]["spec"]
            command = [*pod["containers"][0]["command"]]
            command[-1] = app or command[-1]
        files = self.folder / "plugins"
        contents = plugins.config_map(resource)["data"]
        for item in plugins.volume(resource)["configMap"]["items"]:
            file = files / item["path"]
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(contents[item["key"]])
        (self.folder / "auth.ini").write_text(STOCK_CONFIG.format(self.uri.replace("%", "%%"), ADMIN))
        for path in self.folder.rglob("*"):
            path.chmod(0o755)
        self.folder.chmod(0o755)
        port = free_port()
        environment = {
            "HOME": "/tmp",
            "MLFLOW_BACKEND_STORE_URI": self.uri,
            "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
            "MLFLOW_SERVE_ARTIFACTS": "true",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": str(workers),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_UVICORN_OPTS": "--timeout-graceful-shutdown 5",
        } | (
            {"MLFLOW_AUTH_CONFIG_PATH": "/files/auth.ini"}
            if stock
            else {"PYTHONPATH": "/files/plugins", **PUBLIC_ENVIRONMENT}
        )
        env = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        name = docker(
            "run", "-d", "--network", "host", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "-v", f"{self.folder}:/files:ro", *env, self.image, *command,
        )  # fmt: skip
        container = Container(name, port)
        try:
            wait_until_ready(container)
            yield container
        finally:
            docker("rm", "-f", "-v", name)


def wait_until_ready(container: Container) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        try:
            if container.request("GET", "/health").status == 200:
                return
        except OSError:
            state = docker("inspect", "-f", "{{.State.Status}}", container.name)
            assert state == "running", container.log()
            assert time.monotonic() < deadline, container.log()
        time.sleep(0.5)


def create(instance: Instance, image: str, name: str, folder: Path) -> Deployment:
    """Create a database. The password of its user contains characters that need an encoding."""
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{DATABASE_PASSWORD}'")
    instance.query(CREATE_DATABASE.format(name))
    login = f"{name}:{quote(DATABASE_PASSWORD, safe='')}"
    return Deployment(image, f"postgresql+psycopg2://{login}@{instance.host}:{instance.port}/{name}", folder)
