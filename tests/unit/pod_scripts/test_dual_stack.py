"""The server accepts IPv4 connections always, and IPv6 connections where the node has IPv6."""

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.pod_scripts import dual_stack
from tests.unit.address_families import free_port, has_ipv6

START_TIMEOUT_SECONDS = 60
IPV4, IPV6 = "127.0.0.1", "::1"

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})
"""
"""Responds with the address of the client."""

MODULE = ("-m", "mlflow_operator.pod_scripts.dual_stack")
SOURCE = ("-c", pod_scripts.DUAL_STACK)
NO_IPV6 = """
import runpy, socket, sys
create = socket.socket
class Socket(create):
    def __init__(self, family=-1, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        super().__init__(family, *arguments, **options)
socket.socket = Socket
runpy.run_module("mlflow_operator.pod_scripts.dual_stack", run_name="__main__", alter_sys=True)
"""
"""Runs the module as on a node that was booted with ipv6.disable=1."""


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def port() -> int:
    """A port that is free for IPv4 and for IPv6."""
    return free_port()


def get(address: str, port: int) -> str:
    """Body of the response to a GET request. Raises OSError if nothing listens on this address."""
    connection = http.client.HTTPConnection(address, port, timeout=30)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 200
    body = response.read().decode()
    connection.close()
    return body


@contextmanager
def running(port: int, *argv: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in this directory, from the time when it listens on IPv4, and its child processes."""
    command = [sys.executable, *argv]
    with subprocess.Popen(command, cwd=cwd, start_new_session=True) as process:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        try:
            while True:
                assert process.poll() is None, "the server has exited"
                assert time.monotonic() < deadline
                try:
                    socket.create_connection((IPV4, port), 5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def uvicorn_arguments(port: int, workers: int, folder: Path) -> list[str]:
    """Arguments of the program for a server that responds with the address of the client."""
    (folder / "application.py").write_text(APPLICATION)
    options = ["--host", dual_stack.ALL_IPV4, "--port", str(port), "--workers", str(workers)]
    return ["uvicorn", *options, "application:app"]


@needs_ipv6
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("program", [MODULE, SOURCE], ids=["module", "source"])
def test_server_listens_on_both_families(
    program: tuple[str, str], workers: int, port: int, tmp_path: Path
) -> None:
    """IPv4 clients keep their IPv4 address: FORWARDED_ALLOW_IPS would not match ::ffff:127.0.0.1."""
    with running(port, *program, *uvicorn_arguments(port, workers, tmp_path), cwd=tmp_path) as process:
        assert get(IPV4, port) == IPV4
        assert get(IPV6, port) == IPV6
        process.terminate()
        assert process.wait(30) in {0, -15}  # uvicorn may end itself with the signal


@pytest.mark.parametrize("workers", [1, 2])
def test_server_without_ipv6_listens_on_ipv4(workers: int, port: int, tmp_path: Path) -> None:
    """On a node that was booted with ipv6.disable=1."""
    arguments = uvicorn_arguments(port, workers, tmp_path)
    with running(port, "-c", NO_IPV6, *arguments, cwd=tmp_path):
        assert get(IPV4, port) == IPV4
        with pytest.raises(OSError, match=r"refused|not supported|assign"):
            get(IPV6, port)


def test_unusable_ipv6_is_reported_and_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel without IPv6 is silent, because that is no fault. The log has every other reason."""

    class Socket(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    def no_socket(*arguments: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    if has_ipv6():
        monkeypatch.setattr(dual_stack.socket, "socket", Socket)
        assert dual_stack.ipv6_socket(0) is None
        assert "accepts no IPv6 connections" in capsys.readouterr().err
    monkeypatch.setattr(dual_stack.socket, "socket", no_socket)
    assert dual_stack.ipv6_socket(0) is None
    assert not capsys.readouterr().err


def test_gunicorn_gets_one_socket_for_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow 2 runs gunicorn. Without IPv6, and for every other program, the command stays as it is."""
    gunicorn = [*dual_stack.GUNICORN, "-b", "0.0.0.0:5000", "-w", "2", "mlflow.server:app"]
    if has_ipv6():
        expected = [*dual_stack.GUNICORN, "-b", "[::]:5000", "-w", "2", "mlflow.server:app"]
        assert dual_stack.with_ipv6(gunicorn, []) == expected
    monkeypatch.setattr(dual_stack, "ipv6_socket", lambda port, ipv6_only: None)
    assert dual_stack.with_ipv6(gunicorn, []) == gunicorn
    assert dual_stack.with_ipv6(["git", "status"], []) == ["git", "status"]


MLFLOW_CLI = """
import subprocess, sys
from mlflow import server
def cli(prog_name):
    command = [sys.executable, "-m", "uvicorn", *sys.argv[2:]]
    sys.exit(server._exec_cmd(command, extra_env={}, capture_output=False, synchronous=False))
"""
MLFLOW_SERVER = """
import subprocess
def _exec_cmd(command, *, extra_env, **options):
    return subprocess.run(command).returncode
"""
"""MLflow's command, as far as this program uses it. tests/contracts/test_launcher.py runs MLflow itself."""


@needs_ipv6
@pytest.mark.parametrize("program", [MODULE, SOURCE], ids=["module", "source"])
def test_uvicorn_process_of_mlflow_listens_on_both_families(
    program: tuple[str, str], port: int, tmp_path: Path
) -> None:
    """MLflow starts uvicorn as another process, with the same program: a module, or source code."""
    for name, text in (("__init__", ""), ("cli", MLFLOW_CLI), ("server", MLFLOW_SERVER)):
        file = tmp_path / "mlflow" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    _, *arguments = uvicorn_arguments(port, 1, tmp_path)
    with running(port, *program, "server", *arguments, cwd=tmp_path):
        assert get(IPV4, port) == IPV4
        assert get(IPV6, port) == IPV6
