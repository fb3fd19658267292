"""The whole of the end-to-end tests, in half the time: `python -m tests.e2e`.

Those that stop the operator, fill the node or hold everybody to silence come first, one by one. Most tests have a
namespace to themselves and spend their time waiting, so two of them run at a time. In the end come those that look at
the whole run, which only the process that watched all of it can tell about.

A test that fails beside another one is tried once more, alone, and the run says so: two processors that two clients,
two servers and a cluster share let now and then a moment grow longer than a test takes it for. What is broken fails
again; more than a few at once are not tried again; and what the operator said in any try is judged at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster import settings
from tests.e2e import release, versions
from tests.e2e.kube import TEST_LABEL, Kube
from tests.e2e.record import Record

AT_ONCE = 2
"""Tests at a time; each keeps up to two servers busy, and starting one takes a processor for some seconds."""

MINUTES = 76
"""From the beginning of `make test`, or of these tests where they are run by themselves, unless
MLFLOW_OPERATOR_E2E_MINUTES says otherwise: on a machine that is slow, or has to build everything first, those that
have not begun by then are left out, and named. The last ones, which look at the whole run, never are."""

BEGAN = "MLFLOW_OPERATOR_TEST_BEGAN"
"""Environment, from `make test`: when that was, in seconds since 1970."""

LEFT_OUT = settings.ROOT / "out" / "left-out"
"""One test a line."""

UNTIL = "MLFLOW_OPERATOR_E2E_UNTIL"
"""Environment of the parts of a run: when that is, in seconds since 1970."""

FEW = 3
"""Failures that are tried once more; more of them have a cause of their own."""

SINCE = "MLFLOW_OPERATOR_E2E_SINCE"
"""Environment of the parts of a run: since when the operator is there and all is recorded by the one that began it."""

LONGER = "Run them with MLFLOW_OPERATOR_E2E_MINUTES=600."

FOLDER = "tests/e2e"
LAST = ["tests/e2e/test_no_secrets.py"]
NOTHING_TO_DO = pytest.ExitCode.NO_TESTS_COLLECTED

_record: Record | None = None


def recorded() -> Record | None:
    """The record of the run that this very process began."""
    return _record


def ends(environment: Mapping[str, str], now: float) -> float:
    """When no more tests shall be begun, in seconds since 1970."""
    minutes = float(environment.get("MLFLOW_OPERATOR_E2E_MINUTES", MINUTES))
    return float(environment.get(BEGAN, now)) + 60 * minutes


def leave_out(test: str) -> None:
    """Notes it, to be named in the end."""
    LEFT_OUT.parent.mkdir(exist_ok=True)
    with LEFT_OUT.open("a") as lines:
        lines.write(f"{test}\n")


def out_of_time() -> bool:
    """Whether no more tests shall be begun."""
    return time.time() > float(os.environ.get(UNTIL, "inf"))


def begun() -> str | None:
    """Since when the run lasts that this process is a part of; None if it is a session of its own."""
    return os.environ.get(SINCE)


def clear(kube: Kube) -> None:
    """Takes away what an earlier run left behind: to be looked at, and, if it was killed, servers in our way."""
    shutil.rmtree(kube.settings.root / "out", ignore_errors=True)
    kube.kubectl("delete", "namespaces", "-l", f"{TEST_LABEL}=true", "--wait=false")


def now() -> str:
    """The moment, as the API server writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def main(arguments: list[str]) -> int:
    """All tests in their order; `arguments` go to pytest each time. Returns pytest's worst exit code.

    Where `arguments` name files, these alone are run, and those that look at the whole run.
    """
    global _record  # noqa: PLW0603 - the last tests, in this process, ask for it
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    where = arguments if named else [FOLDER, *arguments]
    kube = Kube()
    clear(kube)
    _record = Record(kube)
    _record.start()
    try:
        release.install(kube)
        os.environ[SINCE] = now()
        os.environ[UNTIL] = str(ends(os.environ, time.time()))
        # files in the order of `pytest_collection_modifyitems`, not by the number of their tests
        dealt = ["-n", str(AT_ONCE), "--dist", "loadfile", "--no-loadscope-reorder"]
        many = [*dealt, "-m", "not alone and not last"]
        with nullcontext() if named else _earlier_versions(kube):
            codes = [
                _part(kube, "alone", ["-m", "alone and not last", *where]),
                _part(kube, "many", [*many, *where]),
            ]
        codes.append(pytest.main(["-m", "last", *where, *(LAST if named else ())]))
    finally:
        _record.stop()
    if LEFT_OUT.exists():
        left = sorted(set(LEFT_OUT.read_text().splitlines()))
        print("", f"LEFT OUT: {len(left)} tests, which had not begun in time. {LONGER}", *left, sep="\n")
    return max((int(code) for code in codes if code != NOTHING_TO_DO), default=0)


@contextmanager
def _earlier_versions(kube: Kube) -> Iterator[None]:
    """Has the images of earlier versions made beside the first tests, which leave a processor idle now and then.

    Whoever needs them asks once more, waits for this to end, and hears what went wrong.
    """
    log = kube.settings.root / "out" / "earlier.log"
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


def _part(kube: Kube, name: str, arguments: list[str]) -> int:
    cache = kube.settings.root / "out" / "cache" / name
    code = _pytest(cache, arguments)
    failed = _failed(cache)
    if code != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed) <= FEW:
        return code
    print(*("", "These failed, and are tried once more, alone:", *failed, ""), sep="\n", flush=True)
    code = _pytest(cache, failed, in_time=False)
    if not code:
        print(*("", "UNSTEADY: failed beside others, passed alone:", *failed, ""), sep="\n", flush=True)
    return code


def _failed(cache: Path) -> list[str]:
    """The tests that failed in the run with this cache."""
    try:
        found: dict[str, bool] = json.loads((cache / "v" / "cache" / "lastfailed").read_text())
    except FileNotFoundError:
        return []
    return sorted(found)


def _pytest(cache: Path, arguments: list[str], *, in_time: bool = True) -> int:
    """`in_time` False: whatever the time, for a failure that is left out would count as mended."""
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    env = {name: value for name, value in os.environ.items() if in_time or name != UNTIL}
    return subprocess.run(command, env=env, check=False).returncode
