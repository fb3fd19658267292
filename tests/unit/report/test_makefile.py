"""The recipe of `make test`, with scripts instead of the tiers and of the cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.report.records import ROOT

REPORT = """#!/bin/sh
echo "report $*"
case "$*" in
  "tier cluster -- "*) shift 3; exec "$@" ;;
  "tier $FAILS -- "*) exit 1 ;;
esac
"""
CLUSTER = """#!/bin/sh
echo "cluster $1"
case "$1" in test-cluster) exit "$CLUSTER_CODE" ;; esac
"""


def make_test(folder: Path, *, fails: str = "none", cluster_code: int = 0) -> tuple[int, list[str]]:
    """Run `make test` with these scripts; returns its exit code and its output lines."""
    for name, script in (("report", REPORT), ("cluster", CLUSTER)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    settings = {"MLFLOW_OPERATOR_CACHE": str(folder), "FAILS": fails, "CLUSTER_CODE": str(cluster_code)}
    command = ("make", "--no-print-directory", "test", f"REPORT={folder}/report", f"CLUSTER={folder}/cluster")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.splitlines()


def tiers(lines: list[str]) -> list[str]:
    """Return the tiers that were started."""
    return [line.split()[2] for line in lines if line.startswith("report tier")]


def test_every_tier_runs_and_the_report_is_last(tmp_path: Path) -> None:
    """The cluster is created during the first tiers, and its output is shown."""
    code, lines = make_test(tmp_path)
    assert code == 0
    assert tiers(lines) == [
        "lint",
        "unit",
        "cluster",
        "chart",
        "apiserver",
        "integration",
        "contracts",
        "e2e",
    ]
    assert "cluster test-cluster" in lines
    assert lines[-1] == "report show"


@pytest.mark.parametrize("fails", ["unit", "chart", "e2e"])
def test_failed_tier_stops_the_run_before_the_report(tmp_path: Path, fails: str) -> None:
    """Before and after the cluster is complete."""
    code, lines = make_test(tmp_path, fails=fails)
    assert code == 2
    assert tiers(lines)[-1] == fails
    assert lines[-1] == "report show"


def test_failed_cluster_stops_the_run(tmp_path: Path) -> None:
    """The cluster is not created a second time, and its output is shown."""
    code, lines = make_test(tmp_path, cluster_code=1)
    assert code == 2
    assert tiers(lines)[-1] == "cluster"
    assert lines.count("cluster test-cluster") == 1
    assert lines[-1] == "report show"
