"""The launcher: MLflow is imported once, and everything else is as with MLflow's own command."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.kube import pod_diagnosis
from mlflow_operator.pod_scripts import dual_stack, launcher

UVICORN = [sys.executable, "-m", "uvicorn"]


class ExecError(Exception):
    """The process would have executed another program, with these arguments and this environment."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.argv, self.environment = argv, environment


@dataclass
class Calls:
    """What the launcher called in this process."""

    uvicorn_arguments: list[list[str]] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    freeze_count: int = 0
    ipv6_count: int = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces what the launcher calls, and records the calls."""
    recorded = Calls()

    def execve(program: str, argv: list[str], environment: dict[str, str]) -> None:
        assert program == sys.executable
        raise ExecError(argv, environment)

    def freeze() -> None:
        recorded.freeze_count += 1

    def add_ipv6() -> None:
        recorded.ipv6_count += 1

    monkeypatch.setattr(dual_stack, "add_ipv6", add_ipv6)
    monkeypatch.setattr(
        launcher.uvicorn, "main", lambda args, standalone_mode: recorded.uvicorn_arguments.append(args)
    )
    monkeypatch.setattr(launcher.importlib, "import_module", recorded.imports.append)
    monkeypatch.setattr(launcher.gc, "freeze", freeze)
    monkeypatch.setattr(launcher.signal, "signal", lambda *handler: None)
    monkeypatch.setattr(launcher.workers, "spawn", launcher.workers.spawn)  # restores it after the test
    monkeypatch.setattr(launcher.threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "environ", {"HOME": "/"})
    monkeypatch.setattr(launcher, "TERMINATION_LOG", "/does-not-exist/termination-log")
    return recorded


def serve(*options: str, server_env: dict[str, str] | None = None) -> None:
    """Call the launcher with a command as MLflow starts it."""
    launcher.serve([*UVICORN, *options, "a:b"], server_env or {}, {"HOME": "/", "SET": "by the checks"})


STORE = {"_MLFLOW_SERVER_FILE_STORE": "sqlite://"}


def test_one_worker_serves_in_this_process(calls: Calls) -> None:
    """With the variables of the server and of the checks; the process ends together with the worker."""
    with pytest.raises(SystemExit) as exit_info:
        serve("--workers", "1", server_env=STORE)
    assert not exit_info.value.code
    assert calls == Calls([["--workers", "1", "a:b"]], ["mlflow.server.fastapi_app", "a"], ipv6_count=1)
    assert {"SET": "by the checks", **STORE}.items() <= os.environ.items()


def test_several_workers_are_forked_from_this_process(calls: Calls) -> None:
    """After all imports and a freeze of the garbage collector."""
    with pytest.raises(SystemExit):
        serve("--workers", "2", server_env=STORE)
    assert calls == Calls([["--workers", "2", "a:b"]], ["mlflow.server.fastapi_app", "a"], 1, 1)
    assert launcher.workers.spawn.get_start_method() == "fork"


def report(capsys: pytest.CaptureFixture[str]) -> str:
    """The reason of the fallback in the log."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(launcher.FALLBACK_PREFIX)
    return line.removeprefix(launcher.FALLBACK_PREFIX)


@pytest.mark.parametrize(
    ("options", "server_env", "reason"),
    [
        (["--workers", "1", "--reload"], STORE, "uvicorn has the option --reload"),
        (["--workers", "2"], STORE | {"_MLFLOW_STATIC_PREFIX": "/mlflow"}, "sets _MLFLOW_STATIC_PREFIX"),
        (["--workers", "1"], {"_MLFLOW_STATIC_PREFIX": "/mlflow"}, "sets _MLFLOW_STATIC_PREFIX"),
        (["--workers", "1"], {"prometheus_multiproc_dir": "/tmp/metrics"}, "sets prometheus_multiproc_dir"),
        (["--workers", "1"], {"_MLFLOW_B": "secret", "_MLFLOW_A": "1"}, "sets _MLFLOW_A, _MLFLOW_B"),
    ],
    ids=[
        "reload",
        "prefix-and-workers",
        "prefix-read-on-import",
        "metrics-started-on-import",
        "new-variables",
    ],
)
def test_unsupported_options_execute_mlflow_command(
    calls: Calls,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    server_env: dict[str, str],
    reason: str,
) -> None:
    """The same command in the same environment, also on IPv6, replaces this process. The log has no value."""
    with pytest.raises(ExecError) as exec_info:
        serve(*options, server_env=server_env)
    assert exec_info.value.argv == [*launcher.MLFLOW, "uvicorn", *options, "a:b"]
    assert exec_info.value.environment == {"HOME": "/", "SET": "by the checks", **server_env}
    assert calls == Calls()
    text = report(capsys)
    assert reason in text
    assert "secret" not in text


@pytest.fixture
def termination_log(calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that the kubelet reads when the container ends. HOME outlives the container."""
    assert calls == Calls()
    path = tmp_path / "termination-log"
    path.touch()
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(launcher, "TERMINATION_LOG", str(path))
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path / "home")})
    return path


def test_container_ends_once_to_report_a_fallback(
    termination_log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator reads the reason in the status of the pod. The kubelet starts the container again."""
    with pytest.raises(SystemExit) as exit_info:
        serve("--workers", "1", "--reload")
    assert not exit_info.value.code
    assert termination_log.read_text() == f"{launcher.FALLBACK_PREFIX}{report(capsys)}"
    termination_log.write_text("")
    with pytest.raises(ExecError):
        serve("--workers", "1", "--reload")
    assert "--reload" in report(capsys), "each start writes it to the log"
    assert not termination_log.read_text(), "a later crash would have this message"


@pytest.mark.parametrize("obstacle", ["home", "termination-log"])
def test_server_starts_if_its_fallback_cannot_be_reported(
    termination_log: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """The container must never end repeatedly. The reason is in the log."""
    if obstacle == "home":
        monkeypatch.setattr(os, "environ", {"HOME": "/does-not-exist"})
    else:
        monkeypatch.setattr(launcher, "TERMINATION_LOG", str(termination_log.parent))
    with pytest.raises(ExecError):
        serve("--workers", "1", "--reload")
    assert not termination_log.read_text()


def test_operator_recognizes_the_report() -> None:
    """The launcher imports nothing from the operator."""
    assert pod_diagnosis.FALLBACK_PREFIX == launcher.FALLBACK_PREFIX


def test_variable_that_did_not_change_needs_no_new_import(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow passes on some variables of its own environment. It already had them when it was imported."""
    monkeypatch.setattr(os, "environ", {"HOME": "/", "MLFLOW_NEW": "true"})
    with pytest.raises(SystemExit):
        serve("--workers", "1", server_env=STORE | {"MLFLOW_NEW": "true"})
    assert len(calls.uvicorn_arguments) == 1
    assert not capsys.readouterr().err


def test_server_that_does_not_serve_tls_needs_no_new_import(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    """Since 3.18.0, MLflow always sets this variable. Its server reads it when it handles requests."""
    with pytest.raises(SystemExit):
        serve("--workers", "1", server_env=STORE | {"_MLFLOW_SERVER_TLS_LISTENER": "false"})
    assert len(calls.uvicorn_arguments) == 1
    assert not capsys.readouterr().err


def test_no_fork_with_another_thread(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The thread might hold a lock, which would never be released in the fork."""
    monkeypatch.setattr(launcher.threading, "active_count", lambda: 2)
    with pytest.raises(ExecError):
        serve("--workers", "2")
    assert not calls.uvicorn_arguments
    assert "another thread" in report(capsys)


def test_unknown_uvicorn_version_starts_its_workers_itself(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow pins no version of uvicorn."""
    monkeypatch.setattr(launcher, "workers", None)
    with pytest.raises(ExecError):
        serve("--workers", "2")
    assert not calls.uvicorn_arguments
    assert "uvicorn" in report(capsys)


CHECKS_SCRIPT = """
import json, os, sys
from mlflow_operator.pod_scripts import launcher

class server:
    _exec_cmd = None

def run():
    {body}

print(json.dumps(launcher.run_checks(run, server)))
print(server._exec_cmd, os.environ.get("SET"))
"""

START = (
    "os.environ['SET'] = 'by the checks';"
    "server._exec_cmd({command}, extra_env={server_env}, capture_output={captured}, synchronous={waits})"
)


def run_checks(body: str) -> tuple[int, Any, str]:
    """Exit code, result, and the state of the parent process afterwards; in a separate process, which forks."""
    script = CHECKS_SCRIPT.format(body=body)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    result, _, state = done.stdout.partition("\n")
    return done.returncode, json.loads(result or "null"), state.strip()


def start(
    command: list[str], server_env: dict[str, str], *, captured: bool = False, waits: bool = False
) -> str:
    """Code that starts a process as MLflow does."""
    return START.format(command=command, server_env=server_env, captured=captured, waits=waits)


def test_checks_report_server_command_and_change_nothing_in_parent() -> None:
    """The checks run in a forked process: what they open and change ends with it."""
    code, (command, server_env, environment), state = run_checks(start([*UVICORN, "a:b"], STORE))
    assert code == 0
    assert (command, server_env) == ([*UVICORN, "a:b"], STORE)
    assert environment["SET"] == "by the checks"
    assert state == "None None"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (start([*UVICORN, "a:b"], {"_MLFLOW_HUEY_STORAGE_PATH": "/dev/shm/x"}), "background jobs"),
        (start([*UVICORN, "a:b"], STORE, waits=True), "another way"),
        (start(["git", "status"], {}, captured=True), "another program than uvicorn"),
    ],
    ids=["background-jobs", "synchronous", "other-program"],
)
def test_process_that_mlflow_waits_for_is_left_to_mlflow(body: str, reason: str) -> None:
    """MLflow's own command starts it. The result is the reason."""
    code, result, _ = run_checks(body)
    assert code == 0
    assert reason in result


@pytest.mark.parametrize(
    ("body", "exit_code"),
    [("sys.exit(3)", 3), ("pass", 0), ("os.kill(os.getpid(), 9)", 137)],
    ids=["check-failed", "nothing-started", "out-of-memory"],
)
def test_failed_checks_end_process_with_same_exit_code(body: str, exit_code: int) -> None:
    """The exit code shows the reason."""
    assert run_checks(body)[::2] == (exit_code, "")


MAIN_SCRIPT = """
import os, sys
from mlflow_operator.pod_scripts import launcher
{body}
launcher.TERMINATION_LOG = "/does-not-exist/termination-log"
os.execv = lambda program, argv: print(argv)
sys.argv[1:] = ["server"]
launcher.main()
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("launcher.run_checks = lambda run, server: 'MLflow starts background jobs'", "background jobs"),
        ("from mlflow import server; del server._exec_cmd", "mlflow.server has no function _exec_cmd"),
    ],
    ids=["not-a-server", "other-internals"],
)
def test_fallback_before_the_server_is_known_executes_mlflow(body: str, reason: str) -> None:
    """With the same arguments; the log has the reason."""
    script = MAIN_SCRIPT.format(body=body)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1].endswith(f"'-m', '{dual_stack.__name__}', 'server']"), done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith(launcher.FALLBACK_PREFIX))
    assert reason in line


SERVER_SCRIPT = """
import json, os, sys
from mlflow_operator.pod_scripts import launcher
from mlflow.server import handlers

os.execve = None
handlers.initialize_backend_stores = lambda *stores, **options: None
launcher.uvicorn.main = lambda args, standalone_mode: print(json.dumps([args[-1], dict(os.environ)]))
sys.argv[1:] = ["server", "--backend-store-uri=sqlite://", "--artifacts-destination=s3://bucket", "--workers=2"]
launcher.main()
"""


def test_pinned_mlflow_is_imported_once() -> None:
    """All variables that MLflow's command sets are known to the launcher. Otherwise each start would silently be slow.

    In a separate process, because MLflow's server reads its environment only once, on import.
    """
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", SERVER_SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    application, server_env = json.loads(done.stdout.splitlines()[-1])
    assert application == "mlflow.server.fastapi_app:app"
    assert server_env["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] == "s3://bucket"
