"""The script in the container with pg_dump, with a program in its place."""

import os
import select
import subprocess
from pathlib import Path

import pytest

from mlflow_operator import pod_scripts

OUTPUT = "x" * 200_000
"""More than a pipe can hold."""


@pytest.fixture
def exchange(tmp_path: Path) -> Path:
    """The folder that both containers share, when the other container is about to read the dump."""
    folder = tmp_path / "exchange"
    folder.mkdir()
    os.mkfifo(folder / "dump")
    for name in ("tables", "pgpass", "pg_service.conf"):
        (folder / name).touch()
    return folder


def open_dump(exchange: Path) -> int:
    """Open the pipe for reading, as the other container does before it writes the connection settings."""
    return os.open(exchange / "dump", os.O_RDONLY | os.O_NONBLOCK)


def read(reader: int, size: int) -> bytes:
    """Read up to `size` bytes, or until the writer has closed the pipe."""
    data, poll = b"", select.poll()
    poll.register(reader, select.POLLIN)
    while len(data) < size:
        events = poll.poll(20_000)
        assert events, "nothing was written within 20 s"
        if not events[0][1] & select.POLLIN:
            break
        data += os.read(reader, size - len(data))
    return data


def start(exchange: Path, program: str | None) -> subprocess.Popen[bytes]:
    """Start the script with a shell script as pg_dump; with None, the image has no such program."""
    programs = exchange.parent / "programs"
    programs.mkdir()
    for name in ("cat", "mv", "sleep"):
        (programs / name).symlink_to(f"/bin/{name}")
    if program is not None:
        (programs / "pg_dump").write_text(f"#!/bin/sh\n{program}\n")
        (programs / "pg_dump").chmod(0o755)
    environment = {"PATH": str(programs), "BACKUP_FOLDER": str(exchange)}
    return subprocess.Popen(
        ["/bin/sh", "-c", pod_scripts.PG_DUMP], env=environment, stderr=subprocess.DEVNULL
    )


def end(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of the script; return its exit code."""
    try:
        return process.wait(20)
    finally:
        process.kill()


@pytest.mark.parametrize("program", [f"echo {OUTPUT}", None], ids=["pg_dump", "image without pg_dump"])
def test_script_ends_if_the_other_container_has_failed(exchange: Path, program: str | None) -> None:
    """It fails after it wrote the connection settings and before this script opens the pipe."""
    (exchange / "finished").touch()
    assert end(start(exchange, program)) != 0


def test_script_ends_if_the_other_container_ends_while_it_reads(exchange: Path) -> None:
    """Only the other container holds the reading end of the pipe."""
    reader = open_dump(exchange)
    process = start(exchange, f"echo {OUTPUT}")
    data = read(reader, 1)
    os.close(reader)
    assert data
    assert end(process) != 0


@pytest.mark.parametrize(
    ("program", "expected", "code"),
    [(f"echo {OUTPUT}; exit 3", f"{OUTPUT}\n", 3), (None, "", 127)],
    ids=["pg_dump", "image without pg_dump"],
)
def test_reader_gets_the_output_and_the_exit_code(
    exchange: Path, program: str | None, expected: str, code: int
) -> None:
    reader = open_dump(exchange)
    process = start(exchange, program)
    assert read(reader, len(OUTPUT) + 100).decode() == expected
    assert end(process) == code
    os.close(reader)
    assert (exchange / "code").read_text() == f"{code}\n"
