"""Runs the end-to-end tests: `python -m tests.e2e [--all] [arguments of pytest]`.

Most tests use their own namespaces and spend much of their time waiting, so several run in parallel. Then the tests
that stop the operator or the API server run one by one, and finally the tests that check the whole run. The last two
groups run in this process, because it holds the record of the run.
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
from tests.e2e import cloudnativepg_operator, namespaces, operator_release, versions
from tests.e2e.kube import TEST_LABEL, Kube
from tests.e2e.secret_scan import Record
from tests.report import records

WORKERS = 3
"""Number of parallel pytest workers. With two, both CPUs are idle for a sixth of the time: tests mostly wait."""

STARTED_AT_VARIABLE = "MLFLOW_OPERATOR_E2E_SINCE"
"""Environment variable that the parent process, which records the run, sets for all its parts: the time when the
operator was installed."""

ALL_OPTION = "--all"
"""Option that also runs the tests marked `long_running`. It is passed on to pytest (`tests/conftest.py`)."""

FOLDER = "tests/e2e"
FINAL_TESTS = ["tests/e2e/test_no_secrets.py"]
KEPT_FOLDERS = (records.FOLDER.name, "bench")
"""Folders in `out` that are kept because other commands read them."""
BACKGROUND_BUILDS = {
    "second-images": versions.BUILD_COMMAND,
    "cloudnativepg-images": cloudnativepg_operator.BUILD_COMMAND,
}
"""Commands that build the images of long-running tests, by the names of their logs."""
WEBHOOKS = "mutatingwebhookconfigurations,validatingwebhookconfigurations"
PLATFORM_CRD = "mlflowplatforms.mlflow-operator.dev"
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED

_record: Record | None = None


def current_record() -> Record | None:
    """Return the record of the run that this process started, or None."""
    return _record


def run_started_at() -> str | None:
    """Return when the run started that this process is part of; None if pytest was called directly."""
    return os.environ.get(STARTED_AT_VARIABLE)


def delete_leftovers(kube: Kube) -> None:
    """Delete the evidence of an earlier run, and its namespaces, webhooks and platforms if it was killed.

    Keeps the records of the other test tiers, because the report at the end of `make test` needs them, and the samples
    of benchmarks.
    """
    for path in (kube.settings.root / "out").glob("*"):
        if path.is_dir() and path.name not in KEPT_FOLDERS:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink()
    leftovers = ("-l", f"{TEST_LABEL}=true", "--wait=false")
    kube.kubectl("delete", f"namespaces,{WEBHOOKS}", *leftovers)
    if kube.kubectl("get", "crd", PLATFORM_CRD, "--ignore-not-found", "-o", "name"):
        kube.kubectl("delete", PLATFORM_CRD, *leftovers)


def current_time() -> str:
    """Return the current time in the format of the API server (RFC 3339, UTC, seconds)."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def main(arguments: list[str]) -> int:
    """Run the tests; `arguments` are passed to pytest in each part. Returns pytest's highest exit code.

    If `arguments` name files, only those run, followed by the tests that check the whole run.
    """
    explicit_paths = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    pytest_arguments = arguments if explicit_paths else [FOLDER, *arguments]
    kube = Kube()
    with usage_lock.hold(kube.settings):
        return _run(kube, arguments, pytest_arguments, explicit_paths=explicit_paths)


def _run(kube: Kube, arguments: list[str], pytest_arguments: list[str], *, explicit_paths: bool) -> int:
    global _record  # noqa: PLW0603 - the last part, in this process, reads it
    delete_leftovers(kube)
    _record = Record(kube)
    _record.start()
    try:
        operator_release.install(kube)
        os.environ[STARTED_AT_VARIABLE] = current_time()
        # schedules groups of tests (`GroupScheduling`) in collection order, not by their number of tests
        parallel = ["-n", str(WORKERS), "--dist", "loadscope", "--no-loadscope-reorder"]
        with _build_test_images(kube) if ALL_OPTION in arguments and not explicit_paths else nullcontext():
            codes = [
                _run_in_subprocess([*parallel, "-m", "not alone and not last", *pytest_arguments]),
                pytest.main(
                    ["-m", "alone or last", *pytest_arguments, *(FINAL_TESTS if explicit_paths else ())]
                ),
            ]
    finally:
        _record.stop()
        namespaces.delete_shared(kube)
    return max((int(code) for code in codes if code != NO_TESTS), default=0)


@contextmanager
def _build_test_images(kube: Kube) -> Iterator[None]:
    """Build the images that only some tests use in the background, while the first tests run.

    A test that needs them starts the same program, which waits for this one to end and reports its errors.
    """
    out = kube.settings.root / "out"
    out.mkdir(exist_ok=True)
    builds = []
    try:
        for name, command in BACKGROUND_BUILDS.items():
            with (out / f"{name}.log").open("w") as log:
                builds.append(
                    subprocess.Popen(
                        command, env=kube.env, cwd=kube.settings.root, stdout=log, stderr=subprocess.STDOUT
                    )
                )
        yield
    finally:
        for build in builds:
            build.terminate()
        for build in builds:
            build.wait()


def _run_in_subprocess(arguments: list[str]) -> int:
    """Run pytest in a subprocess, because pytest cannot run twice in one process."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
