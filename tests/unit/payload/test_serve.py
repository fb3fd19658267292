"""The server in the process of MLflow's command: only where it makes no difference but the second copy."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from mlflow_operator.payload import serve

UVICORN = [sys.executable, "-m", "uvicorn"]
CALLED = {"capture_output": False, "synchronous": False}


class ElsewhereError(Exception):
    """MLflow's own way to start a process was taken."""


class ReplacedError(Exception):
    """This process would have become another program, with these arguments and this environment."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.argv, self.environment = argv, environment


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Arguments of uvicorn in this process."""
    found: list[list[str]] = []

    def replaced(program: str, argv: list[str], environment: dict[str, str]) -> None:
        assert program == sys.executable
        raise ReplacedError(argv, environment)

    monkeypatch.setattr(serve.uvicorn, "main", lambda args, standalone_mode: found.append(args))
    monkeypatch.setattr(os, "execve", replaced)
    monkeypatch.setattr(os, "environ", {"HOME": "/"})
    return found


def spawn(command: list[str], **how: Any) -> None:
    """In the place of MLflow's."""
    raise ElsewhereError


def start(*options: str, told: dict[str, str] | None = None, **how: Any) -> None:
    """As MLflow calls it."""
    command = [*UVICORN, *options, "a:b"]
    serve.taking_its_place(spawn)(command, extra_env=told or {}, **{**CALLED, **how})


def test_one_worker_serves_in_this_process(served: list[list[str]]) -> None:
    """With what MLflow tells its server, and the process ends with it."""
    with pytest.raises(SystemExit) as ended:
        start("--workers", "1", told={"_MLFLOW_SERVER_FILE_STORE": "sqlite://"})
    assert not ended.value.code
    assert served == [["--workers", "1", "a:b"]]
    assert os.environ["_MLFLOW_SERVER_FILE_STORE"] == "sqlite://"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "2"], {"_MLFLOW_SERVER_FILE_STORE": "sqlite://"}),
        (["--workers", "1", "--reload"], {"_MLFLOW_SERVER_FILE_STORE": "sqlite://"}),
        (["--workers", "1"], {"_MLFLOW_STATIC_PREFIX": "/mlflow"}),
        (["--workers", "1"], {"prometheus_multiproc_dir": "/tmp/metrics"}),
    ],
    ids=["workers", "reload", "a prefix, read on import", "metrics, begun on import"],
)
def test_all_else_becomes_what_mlflow_would_have_started(
    served: list[list[str]], options: list[str], told: dict[str, str]
) -> None:
    """The same command in the same environment, in the place of the process that would wait for it."""
    with pytest.raises(ReplacedError) as became:
        start(*options, told=told)
    assert became.value.argv == [*UVICORN, *options, "a:b"]
    assert became.value.environment == os.environ | told
    assert not served


def test_what_mlflow_has_to_wait_for_it_starts_itself(served: list[list[str]]) -> None:
    """Background jobs have a process of their own, and other programs are no servers."""
    with pytest.raises(ElsewhereError):
        start("--workers", "1", told={"_MLFLOW_HUEY_STORAGE_PATH": "/dev/shm/x"})
    with pytest.raises(ElsewhereError):
        start("--workers", "1", synchronous=True)
    with pytest.raises(ElsewhereError):
        serve.taking_its_place(spawn)(["git", "status"], capture_output=True)
    assert not served


SERVED = """
import json, os, sys
from mlflow_operator.payload import serve
from mlflow.server import handlers

os.execve = None
handlers.initialize_backend_stores = lambda *stores, **more: None
serve.uvicorn.main = lambda args, standalone_mode: print(json.dumps([args[-1], dict(os.environ)]))
sys.argv[1:] = ["server", "--backend-store-uri=sqlite://", "--artifacts-destination=s3://bucket", "--workers=1"]
serve.main()
"""


def test_the_pinned_mlflow_is_served_in_place() -> None:
    """What its command tells its server is all known here: else each start would quietly take twice as long again.

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
