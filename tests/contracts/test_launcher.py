"""A server with MLflow imported once is the server that MLflow's own command starts, in MLflow's own image."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_operator.model import deployment, plugins
from tests.cluster import settings
from tests.containers import docker
from tests.unit.servers import server

PINS = settings.read_pins(settings.ROOT / "versions.env")
MLFLOW = PINS["IMAGE_MLFLOW"]
READY = 120
PROCESSES = {"1": 1, "2": 3}
"""By workers: the one that serves; else the one that keeps the workers, and these."""

Start = Callable[..., str]

ASKED = """
import http.client, json, sys
answers = []
for method, path, headers, body in json.load(sys.stdin):
    link = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
    link.putrequest(method, path, skip_host=True)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        link.putheader(name, value)
    link.endheaders(body.encode())
    said = link.getresponse()
    known = {name.lower(): value for name, value in said.getheaders() if name.lower() not in ("date", "server")}
    answers.append([said.status, known, said.read().decode(errors="replace")])
print(json.dumps(answers))
"""

KILL_ONE = """
import os, pathlib, signal
os.kill(int(pathlib.Path("/proc/1/task/1/children").read_text().split()[-1]), signal.SIGKILL)
"""

OURS, STRANGE = {"Host": "tracking"}, {"Host": "evil.example"}
PAGE = {**OURS, "Origin": "http://tracking"}
STRANGE_PAGE = {**OURS, "Origin": "http://evil.example"}
EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=7"
QUESTIONS: list[tuple[str, str, dict[str, str], str]] = [
    ("GET", "/health", OURS, ""),
    ("GET", "/version", OURS, ""),
    ("GET", EXPERIMENT, OURS, ""),
    ("GET", EXPERIMENT, STRANGE, ""),
    ("GET", "/ajax-" + EXPERIMENT[1:], PAGE, ""),
    ("POST", "/ajax-api/2.0/mlflow/experiments/create", STRANGE_PAGE, '{"name": "theirs"}'),
    ("GET", "/", OURS, ""),
    ("GET", "/", STRANGE, ""),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=none", OURS, ""),
    ("GET", "/api/3.0/mlflow/server-info", OURS, ""),
    ("GET", "/metrics", OURS, ""),
]
"""What a client and a page ask; strangers among them, whom nobody but MLflow itself refuses."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs a server as in a pod; gives the container's name once it answers."""
    made = server()
    contents = plugins.config_map(made)["data"]
    for item in plugins.volume(made)["configMap"]["items"]:
        file = tmp_path / item["path"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(contents[item["key"]])
    tmp_path.chmod(0o755)
    started: list[str] = []

    def run(*argv: str, workers: str, more: tuple[str, ...] = ()) -> str:
        given = {
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
        env = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
        name = docker(
            "run", "-d", "--network", "none", "--user", "10001:10001", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "-v", f"{tmp_path}:/plugins:ro", *env, *more, MLFLOW, *argv,
        )  # fmt: skip
        started.append(name)
        deadline = time.monotonic() + READY
        while True:
            try:
                if asked(name, QUESTIONS[:1])[0][0] == 200:
                    return name
            except AssertionError:
                state = docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)
                if not state.startswith("running") or time.monotonic() > deadline:
                    pytest.fail(f"{state}\n{docker('logs', name)}")
            time.sleep(0.5)

    yield run
    for name in started:
        docker("rm", "-f", "-v", name)


def command() -> list[str]:
    """A pod's."""
    pod = deployment.deployment(server(), "")["spec"]["template"]["spec"]
    return [*pod["containers"][0]["command"]]


def asked(name: str, questions: list[tuple[str, str, dict[str, str], str]]) -> list[list[object]]:
    """Status, headers and body of each answer, from within the container: it has no network."""
    found: list[list[object]] = json.loads(
        docker("exec", "-i", name, "python3", "-c", ASKED, stdin=json.dumps(questions))
    )
    return found


def processes(name: str) -> list[str]:
    """Command lines."""
    return docker("top", name, "-eo", "pid,args").splitlines()[1:]


def listens(name: str) -> bool:
    """Whether the first process has a handler for SIGTERM."""
    caught = docker("exec", name, "grep", "SigCgt", "/proc/1/status").split()[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(
            "1",
            marks=pytest.mark.long_running(
                reason="two more servers; the case of two workers checks the same answers"
            ),
        ),
        "2",
    ],
)
def test_it_answers_as_mlflows_own_command_does_and_ends_when_asked(start: Start, workers: str) -> None:
    """Hosts and origins that it does not know are refused by both; no process waits for another."""
    ours = start(*command(), workers=workers)
    mlflows = start("mlflow", "server", "--app-name", plugins.DIRECT_APP, workers=workers)
    answers, wanted = asked(ours, QUESTIONS), asked(mlflows, QUESTIONS)
    assert [status for status, *_ in wanted].count(403) >= 2
    for question, answer, want in zip(QUESTIONS, answers, wanted, strict=True):
        assert answer == want, question
    seen = processes(ours)
    assert len(seen) == PROCESSES[workers], seen
    assert all(plugins.LAUNCHER in each for each in seen), "each has all that the first one imported"
    docker("stop", "--time", "20", ours)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", ours) == "0"


@pytest.mark.long_running(reason="a crash of one process; tests/e2e/test_embedded.py kills whole pods")
def test_a_worker_that_dies_is_followed_by_another(start: Start) -> None:
    """A new copy of the process that never served, while the other worker answers."""
    ours = start(*command(), workers="2")
    before = {line.split()[0] for line in processes(ours)}
    docker("exec", ours, "python3", "-c", KILL_ONE)
    deadline = time.monotonic() + READY
    while len(after := {line.split()[0] for line in processes(ours)}) < len(before) or after == before:
        assert time.monotonic() < deadline, docker("logs", ours)
    assert len(after & before) == len(before) - 1
    for answer, want in zip(asked(ours, QUESTIONS * 4), asked(ours, QUESTIONS) * 4, strict=True):
        assert answer == want


def test_while_it_starts_it_ends_when_asked(start: Start) -> None:
    """The first process of a container would otherwise be deaf until uvicorn listens to signals."""
    ours = start(*command(), workers="2")
    docker("restart", ours)
    deadline = time.monotonic() + READY
    while not listens(ours):
        assert time.monotonic() < deadline
    docker("stop", "--time", "20", ours)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", ours) == "143"


def test_a_database_it_can_not_use_ends_it_with_what_mlflow_says(start: Start) -> None:
    """Exit code and last words are those of MLflow's command."""
    broken = ("-e", "MLFLOW_BACKEND_STORE_URI=sqlite:////nowhere/mlflow.db")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)^exited 1\n.*Error initializing backend store"):
        start(*command(), workers="2", more=broken)


def test_metrics_are_there_where_they_are_asked_for(start: Start) -> None:
    """MLflow begins to count while it is imported."""
    counting = start(*command(), workers="1", more=("-e", "MLFLOW_EXPOSE_PROMETHEUS=/tmp/metrics"))
    status, _, text = asked(counting, [("GET", "/metrics", OURS, "")])[0]
    assert status == 200
    assert "mlflow_exporter_info" in str(text)
