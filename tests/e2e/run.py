"""Runs the end-to-end tests: `python -m tests.e2e [--all] [arguments of pytest]`.

Most tests have namespaces of their own and spend much of their time waiting, so several run at a time. Tests that stop
the operator or the API server follow, one by one, and then those that judge the whole run. Both run in this process,
because it is the one that recorded the run.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster import usage_lock
from tests.e2e import namespaces, operator_release, versions
from tests.e2e.kube import TEST_LABEL, Kube
from tests.e2e.secret_scan import Record
from tests.report import records

WORKERS = 3
"""Tests at a time. With two, both processors are idle for a sixth of the time: tests wait for the operator."""

SINCE = "MLFLOW_OPERATOR_E2E_SINCE"
"""Environment of the parts of a run: since when the operator runs and the process that started the run records it."""

ALL = "--all"
"""The argument that also runs the tests marked `long_running`. pytest gets it, too (`tests/conftest.py`)."""

FOLDER = "tests/e2e"
LAST = ["tests/e2e/test_no_secrets.py"]
KEPT = (records.FOLDER.name, "bench")
"""Folders in `out` that other commands read."""
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED

_record: Record | None = None


def recorded() -> Record | None:
    """The record of the run that this very process started."""
    return _record


def begun() -> str | None:
    """Since when the run lasts that this process is a part of; None if it is a session of its own."""
    return os.environ.get(SINCE)


def clear(kube: Kube) -> None:
    """Removes what an earlier run left: its evidence, and namespaces if it was killed.

    The records of the other tiers stay, because the report at the end of `make test` needs them, and so do the samples
    of benchmarks.
    """
    for path in (kube.settings.root / "out").glob("*"):
        if path.is_dir() and path.name not in KEPT:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink()
    kube.kubectl("delete", "namespaces", "-l", f"{TEST_LABEL}=true", "--wait=false")


def now() -> str:
    """The current time, as the API server writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def main(arguments: list[str]) -> int:
    """Runs the tests; `arguments` go to pytest in each part. Returns pytest's worst exit code.

    Where `arguments` name files, only those run, and the tests that judge the whole run.
    """
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    where = arguments if named else [FOLDER, *arguments]
    kube = Kube()
    with usage_lock.hold(kube.settings):
        return _run(kube, arguments, where, named=named)


def _run(kube: Kube, arguments: list[str], where: list[str], *, named: bool) -> int:
    global _record  # noqa: PLW0603 - the last part, in this process, reads it
    clear(kube)
    _record = Record(kube)
    _record.start()
    try:
        operator_release.install(kube)
        os.environ[SINCE] = now()
        # groups of tests (`scheduling`) in the order of their collection, not by their number of tests
        parallel = ["-n", str(WORKERS), "--dist", "loadscope", "--no-loadscope-reorder"]
        with _second_image_set(kube) if ALL in arguments and not named else nullcontext():
            codes = [
                _in_parallel([*parallel, "-m", "not alone and not last", *where]),
                pytest.main(["-m", "alone or last", *where, *(LAST if named else ())]),
            ]
    finally:
        _record.stop()
        namespaces.delete_shared(kube)
    return max((int(code) for code in codes if code != NO_TESTS), default=0)


@contextmanager
def _second_image_set(kube: Kube) -> Iterator[None]:
    """Builds the second image set beside the first tests.

    A test that needs it starts the same program, which waits for this one to end and reports what went wrong.
    """
    log = kube.settings.root / "out" / "second-images.log"
    log.parent.mkdir(exist_ok=True)
    with (
        log.open("w") as lines,
        subprocess.Popen(
            versions.MADE_READY, env=kube.env, cwd=kube.settings.root, stdout=lines, stderr=subprocess.STDOUT
        ) as making,
    ):
        try:
            yield
        finally:
            making.terminate()


def _in_parallel(arguments: list[str]) -> int:
    """In a process of its own: pytest cannot run twice in one."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
