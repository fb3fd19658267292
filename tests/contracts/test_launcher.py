"""A server that the launcher starts behaves like one that `mlflow server` starts. Both run in MLflow's image."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_operator.model import deployment, plugins
from mlflow_operator.model.versions import FAST_PATH_VERSIONS
from mlflow_operator.pod_scripts import launcher
from tests.cluster import registry, settings
from tests.cluster.shell import Shell
from tests.cluster.substitute_images import EARLIER_MLFLOW
from tests.containers import docker
from tests.unit.servers import server

PINS = settings.read_pins(settings.ROOT / "versions.env")
MLFLOW = PINS["IMAGE_MLFLOW"]
EARLIER_IMAGES = {
    version: reference
    for name, reference in PINS.items()
    if name.startswith(EARLIER_MLFLOW)
    and (version := reference.rpartition(":v")[2].removesuffix("-full")) in FAST_PATH_VERSIONS
}
"""Images of earlier releases that the fast path supports, by version. tests/unit/test_catalogue.py checks that none is
missing."""
READY_TIMEOUT_SECONDS = 120
STARTED_LOG_LINE = "Started parent process"
"""What uvicorn logs once it handles signals, with more than one worker."""

PROCESSES_BY_WORKERS = {"1": 1, "2": 3}
"""A single worker runs in the first process; otherwise the first process manages the worker processes."""

StartServer = Callable[..., str]

REQUEST_SCRIPT = """
import http.client, json, sys
responses = []
for method, path, headers, body in json.load(sys.stdin):
    connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(body.encode())
    response = connection.getresponse()
    lower = {name.lower(): value for name, value in response.getheaders()}
    stable = {name: value for name, value in lower.items() if name not in ("date", "server")}
    responses.append([response.status, stable, response.read().decode(errors="replace")])
print(json.dumps(responses))
"""

KILL_WORKER_SCRIPT = """
import os, pathlib, signal
os.kill(int(pathlib.Path("/proc/1/task/1/children").read_text().split()[-1]), signal.SIGKILL)
"""

ALLOWED_HOST, OTHER_HOST = {"Host": "tracking"}, {"Host": "evil.example"}
ALLOWED_ORIGIN = {**ALLOWED_HOST, "Origin": "http://tracking"}
OTHER_ORIGIN = {**ALLOWED_HOST, "Origin": "http://evil.example"}
EXPERIMENT_PATH = "/api/2.0/mlflow/experiments/get?experiment_id=7"
REQUESTS: list[tuple[str, str, dict[str, str], str]] = [
    ("GET", "/health", ALLOWED_HOST, ""),
    ("GET", "/version", ALLOWED_HOST, ""),
    ("GET", EXPERIMENT_PATH, ALLOWED_HOST, ""),
    ("GET", EXPERIMENT_PATH, OTHER_HOST, ""),
    ("GET", "/ajax-" + EXPERIMENT_PATH[1:], ALLOWED_ORIGIN, ""),
    ("POST", "/ajax-api/2.0/mlflow/experiments/create", OTHER_ORIGIN, '{"name": "other"}'),
    ("GET", "/", ALLOWED_HOST, ""),
    ("GET", "/", OTHER_HOST, ""),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=none", ALLOWED_HOST, ""),
    ("GET", "/api/3.0/mlflow/server-info", ALLOWED_HOST, ""),
    ("GET", "/metrics", ALLOWED_HOST, ""),
]
"""Requests of clients and of web pages. Some have hosts and origins that MLflow itself must reject."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Function that runs a server as in a pod, waits until it answers, and returns the container's name."""
    resource = server()
    contents = plugins.config_map(resource)["data"]
    for item in plugins.volume(resource)["configMap"]["items"]:
        file = tmp_path / item["path"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(contents[item["key"]])
    tmp_path.chmod(0o755)
    containers: list[str] = []

    def run(*argv: str, workers: str, options: tuple[str, ...] = (), image: str = MLFLOW) -> str:
        environment = {
            "HOME": "/tmp",
            "PYTHONPATH": "/plugins",
            "MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": "/tmp/artifacts",
            "MLFLOW_SERVE_ARTIFACTS": "true",
            "MLFLOW_HOST": "0.0.0.0",  # noqa: S104
            "MLFLOW_PORT": "5000",
            "MLFLOW_WORKERS": workers,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "tracking",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "http://tracking",
            "MLFLOW_UVICORN_OPTS": "--timeout-graceful-shutdown 5",
        }
        env = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        name = docker(
            "run", "-d", "--network", "none", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "-v", f"{tmp_path}:/plugins:ro", *env, *options, image, *argv,
        )  # fmt: skip
        containers.append(name)
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while True:
            try:
                if send_requests(name, REQUESTS[:1])[0][0] == 200:
                    return name
            except AssertionError:
                state = docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)
                if not state.startswith("running") or time.monotonic() > deadline:
                    pytest.fail(f"{state}\n{docker('logs', name)}")
            time.sleep(0.5)

    yield run
    for name in containers:
        docker("rm", "-f", "-v", name)


def server_command(*, fast_path: bool = True) -> list[str]:
    """The command of the server's container."""
    resource = replace(server(), fast_path=fast_path)
    pod = deployment.deployment(resource, "")["spec"]["template"]["spec"]
    return [*pod["containers"][0]["command"]]


def send_requests(name: str, requests: list[tuple[str, str, dict[str, str], str]]) -> list[list[object]]:
    """Send requests within the container, which has no network; return status, headers and body of the responses."""
    responses: list[list[object]] = json.loads(
        docker("exec", "-i", name, "python3", "-c", REQUEST_SCRIPT, stdin=json.dumps(requests))
    )
    return responses


def process_lines(name: str) -> list[str]:
    """PID and command line of each process."""
    return docker("top", name, "-eo", "pid,args").splitlines()[1:]


def log_since_restart(name: str) -> str:
    """The log of the container's current or last run."""
    return docker("logs", "--since", docker("inspect", "-f", "{{.State.StartedAt}}", name), name)


def handles_sigterm(name: str) -> bool:
    """Whether the first process has a handler for SIGTERM."""
    caught_signals = docker("exec", name, "grep", "SigCgt", "/proc/1/status").split()[1]
    return bool(int(caught_signals, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(
            "1",
            marks=pytest.mark.long_running(
                reason="two more servers; the case of two workers checks the same responses"
            ),
        ),
        "2",
    ],
)
def test_responses_equal_those_of_mlflow_server_and_sigterm_ends_it(start: StartServer, workers: str) -> None:
    """Both reject unknown hosts and origins. The launcher leaves no process that only waits for another one."""
    check_launcher(start, workers, MLFLOW)


@pytest.mark.usefixtures("test_images")
@pytest.mark.parametrize("version", EARLIER_IMAGES)
@pytest.mark.long_running(reason="needs images of earlier versions; the default version runs in `make test`")
def test_launcher_supports_earlier_versions_of_the_catalogue(
    start: StartServer, version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the release's own image. Without a fallback, there is no process that is not a fork of the first one."""
    shell = Shell(tmp_path_factory.mktemp("pull") / "log")
    if not registry.has_docker_image(shell, EARLIER_IMAGES[version]):
        registry.pull(shell, EARLIER_IMAGES[version])
    check_launcher(start, "2", EARLIER_IMAGES[version])


def check_launcher(start: StartServer, workers: str, image: str) -> None:
    """Compare the launcher with MLflow's own command in the same image."""
    launched = start(*server_command(), workers=workers, image=image)
    reference = start("mlflow", "server", "--app-name", plugins.FAST_PATH_APP, workers=workers, image=image)
    assert launcher.FALLBACK_PREFIX not in docker("logs", launched)
    responses, expected = send_requests(launched, REQUESTS), send_requests(reference, REQUESTS)
    assert [status for status, *_ in expected].count(403) >= 2
    for request, response, expected_response in zip(REQUESTS, responses, expected, strict=True):
        assert response == expected_response, request
    lines = process_lines(launched)
    assert len(lines) == PROCESSES_BY_WORKERS[workers], lines
    assert all(plugins.LAUNCHER_MODULE in line for line in lines), (
        "a process that is not a fork of the first one"
    )
    docker("stop", "--time", "20", launched)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", launched) == "0"


@pytest.mark.long_running(reason="a crash of one process; tests/e2e/test_embedded.py kills whole pods")
def test_killed_worker_is_replaced(start: StartServer) -> None:
    """The first process, which serves no requests, forks a new worker. Meanwhile the other worker answers."""
    name = start(*server_command(), workers="2")
    before = {line.split()[0] for line in process_lines(name)}
    docker("exec", name, "python3", "-c", KILL_WORKER_SCRIPT)
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while len(after := {line.split()[0] for line in process_lines(name)}) < len(before) or after == before:
        assert time.monotonic() < deadline, docker("logs", name)
    assert len(after & before) == len(before) - 1
    for response, expected_response in zip(
        send_requests(name, REQUESTS * 4), send_requests(name, REQUESTS) * 4, strict=True
    ):
        assert response == expected_response


def test_sigterm_during_startup_ends_server(start: StartServer) -> None:
    """Without its own handler, the first process of a container would ignore signals until uvicorn handles them.

    The exit code is 143 before uvicorn handles signals. If the machine is so busy that the server starts before the
    signal arrives, it ends with 0 after a graceful shutdown.
    """
    name = start(*server_command(), workers="2")
    docker("restart", name)
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not handles_sigterm(name):
        assert time.monotonic() < deadline
    docker("stop", "--time", "20", name)
    has_started = STARTED_LOG_LINE in log_since_restart(name)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == ("0" if has_started else "143")


def test_database_error_has_exit_code_and_output_of_mlflow_server(start: StartServer) -> None:
    """When MLflow cannot use the database."""
    options = ("-e", "MLFLOW_BACKEND_STORE_URI=sqlite:////nowhere/mlflow.db")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)^exited 1\n.*Error initializing backend store"):
        start(*server_command(), workers="2", options=options)


def test_metrics_can_be_enabled(start: StartServer) -> None:
    """MLflow enables its metrics when it is imported, so its own command starts the server. The log has the reason."""
    name = start(*server_command(), workers="1", options=("-e", "MLFLOW_EXPOSE_PROMETHEUS=/tmp/metrics"))
    status, _, text = send_requests(name, [("GET", "/metrics", ALLOWED_HOST, "")])[0]
    assert status == 200
    assert "mlflow_exporter_info" in str(text)
    (line,) = (
        line for line in docker("logs", name).splitlines() if line.startswith(launcher.FALLBACK_PREFIX)
    )
    assert "prometheus_multiproc_dir" in line


FAMILIES_SCRIPT = """
import http.client, json
results = {}
for address in ("127.0.0.1", "::1"):
    connection = http.client.HTTPConnection(address, 5000, timeout=60)
    try:
        connection.request("GET", "/health")
        results[address] = connection.getresponse().status
    except OSError:
        results[address] = None
print(json.dumps(results))
"""


@pytest.mark.parametrize(
    ("fast_path", "workers", "job_execution"),
    [
        pytest.param(True, "1", "false", id="one-worker"),
        pytest.param(True, "2", "false", id="forked-workers"),
        pytest.param(False, "2", "false", id="without-fast-path"),
        pytest.param(True, "1", "true", id="background-jobs"),
    ],
)
def test_server_listens_on_ipv4_and_ipv6(
    start: StartServer, fast_path: bool, workers: str, job_execution: str
) -> None:
    """The container has both loopback addresses, although it has no network."""
    options = (
        "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.lo.disable_ipv6=0",
        "-e", f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION={job_execution}",
    )  # fmt: skip
    name = start(*server_command(fast_path=fast_path), workers=workers, options=options)
    assert json.loads(docker("exec", name, "python3", "-c", FAMILIES_SCRIPT)) == {
        "127.0.0.1": 200,
        "::1": 200,
    }
