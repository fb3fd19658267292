"""The server with MLflow imported once: only where it makes no difference but the other copies."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from mlflow_operator.pod_scripts import launcher as serve

UVICORN = [sys.executable, "-m", "uvicorn"]


class ReplacedError(Exception):
    """This process would have become another program, with these arguments and this environment."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.argv, self.environment = argv, environment


@dataclass
class Done:
    """What the process did to itself."""

    arguments: list[list[str]] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)
    frozen: int = 0


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Done:
    """Uvicorn's arguments in this process, and what came before."""
    found = Done()

    def replaced(program: str, argv: list[str], environment: dict[str, str]) -> None:
        assert program == sys.executable
        raise ReplacedError(argv, environment)

    def freeze() -> None:
        found.frozen += 1

    monkeypatch.setattr(serve.uvicorn, "main", lambda args, standalone_mode: found.arguments.append(args))
    monkeypatch.setattr(serve.importlib, "import_module", found.imported.append)
    monkeypatch.setattr(serve.gc, "freeze", freeze)
    monkeypatch.setattr(serve.signal, "signal", lambda *handler: None)
    monkeypatch.setattr(serve.workers, "spawn", serve.workers.spawn)  # put back afterwards
    monkeypatch.setattr(serve.threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "execve", replaced)
    monkeypatch.setattr(os, "environ", {"HOME": "/"})
    return found


def run(*options: str, told: dict[str, str] | None = None) -> None:
    """Does what MLflow would have uvicorn do."""
    serve.serve([*UVICORN, *options, "a:b"], told or {}, {"HOME": "/", "SAID": "by the check"})


STORE = {"_MLFLOW_SERVER_FILE_STORE": "sqlite://"}


def test_one_worker_serves_in_this_process(done: Done) -> None:
    """With what MLflow tells its server, and with what its checks set; and the process ends with it."""
    with pytest.raises(SystemExit) as ended:
        run("--workers", "1", told=STORE)
    assert not ended.value.code
    assert done == Done([["--workers", "1", "a:b"]], ["mlflow.server.fastapi_app", "a"])
    assert {"SAID": "by the check", **STORE}.items() <= os.environ.items()


def test_more_workers_are_copies_of_this_process(done: Done) -> None:
    """Which has imported all they need, and settled it, before uvicorn makes the first one."""
    with pytest.raises(SystemExit):
        run("--workers", "2", told=STORE)
    assert done == Done([["--workers", "2", "a:b"]], ["mlflow.server.fastapi_app", "a"], 1)
    assert serve.workers.spawn.get_start_method() == "fork"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "1", "--reload"], STORE),
        (["--workers", "2"], STORE | {"_MLFLOW_STATIC_PREFIX": "/mlflow"}),
        (["--workers", "1"], {"_MLFLOW_STATIC_PREFIX": "/mlflow"}),
        (["--workers", "1"], {"prometheus_multiproc_dir": "/tmp/metrics"}),
    ],
    ids=["reload", "a prefix and workers", "a prefix, read on import", "metrics, begun on import"],
)
def test_all_else_becomes_what_mlflow_would_have_started(
    done: Done, options: list[str], told: dict[str, str]
) -> None:
    """The same command in the same environment, in the place of this process."""
    with pytest.raises(ReplacedError) as became:
        run(*options, told=told)
    assert became.value.argv == [*UVICORN, *options, "a:b"]
    assert became.value.environment == {"HOME": "/", "SAID": "by the check", **told}
    assert done == Done()


def test_beside_another_thread_no_copy_is_made(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might hold a lock, which nobody in the copy would ever give back."""
    monkeypatch.setattr(serve.threading, "active_count", lambda: 2)
    with pytest.raises(ReplacedError):
        run("--workers", "2")
    assert not done.arguments


def test_an_uvicorn_that_is_unlike_ours_makes_its_workers_itself(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it did before; MLflow names no version of it."""
    monkeypatch.setattr(serve, "workers", None)
    with pytest.raises(ReplacedError):
        run("--workers", "2")
    assert not done.arguments


CHECKED = """
import json, os, sys
from mlflow_operator.pod_scripts import launcher as serve

class server:
    _exec_cmd = None

def run():
    {body}

print(json.dumps(serve.checked(run, server)))
print(server._exec_cmd, os.environ.get("SET"))
"""

START = (
    "os.environ['SET'] = 'by the check';"
    "server._exec_cmd({command}, extra_env={told}, capture_output={captured}, synchronous={waits})"
)


def checked(body: str) -> tuple[int, Any, str]:
    """Exit code, what came of it, and whether this process was touched; in one of its own, which is copied."""
    script = CHECKED.format(body=body)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    answer, _, rest = ended.stdout.partition("\n")
    return ended.returncode, json.loads(answer or "null"), rest.strip()


def start(command: list[str], told: dict[str, str], *, captured: bool = False, waits: bool = False) -> str:
    """How MLflow starts something."""
    return START.format(command=command, told=told, captured=captured, waits=waits)


def test_what_mlflow_would_start_is_told_and_nothing_else_stays_of_its_checks() -> None:
    """They are a copy's: what they opened, and what they changed, goes with it."""
    code, (command, told, environment), here = checked(start([*UVICORN, "a:b"], STORE))
    assert code == 0
    assert (command, told) == ([*UVICORN, "a:b"], STORE)
    assert environment["SET"] == "by the check"
    assert here == "None None"


@pytest.mark.parametrize(
    "body",
    [
        start([*UVICORN, "a:b"], {"_MLFLOW_HUEY_STORAGE_PATH": "/dev/shm/x"}),
        start([*UVICORN, "a:b"], STORE, waits=True),
        start(["git", "status"], {}, captured=True),
    ],
    ids=["background jobs", "one that is waited for", "another program"],
)
def test_what_mlflow_has_to_wait_for_is_none_of_ours(body: str) -> None:
    """Its command starts that itself."""
    assert checked(body)[:2] == (0, None)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [("sys.exit(3)", 3), ("pass", 0), ("os.kill(os.getpid(), 9)", 137)],
    ids=["refused", "nothing to start", "out of memory"],
)
def test_checks_that_end_otherwise_end_the_pod_so(body: str, wanted: int) -> None:
    """With the exit code that says why."""
    assert checked(body)[::2] == (wanted, "")


SERVED = """
import json, os, sys
from mlflow_operator.pod_scripts import launcher as serve
from mlflow.server import handlers

os.execve = None
handlers.initialize_backend_stores = lambda *stores, **more: None
serve.uvicorn.main = lambda args, standalone_mode: print(json.dumps([args[-1], dict(os.environ)]))
sys.argv[1:] = ["server", "--backend-store-uri=sqlite://", "--artifacts-destination=s3://bucket", "--workers=2"]
serve.main()
"""


def test_the_pinned_mlflow_is_imported_once() -> None:
    """What its command tells its server is all known here: else each start would quietly take its time again.

    In a process of its own: MLflow's server looks at its surroundings when it is imported, once.
    """
    given = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", SERVED], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    application, told = json.loads(done.stdout.splitlines()[-1])
    assert application == "mlflow.server.fastapi_app:app"
    assert told["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] == "s3://bucket"
