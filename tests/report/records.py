"""Records per test and per tier, as files in out/report/."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "out" / "report"
TIER_FOLDER_VARIABLE = "MLFLOW_OPERATOR_TEST_RECORDS"
"""Environment variable with the folder for the records of the running tier."""

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_SUITE_FILE, _TIER_FILE, _COVERAGE_FILE = "suite", "tier.json", "coverage"


@dataclass(frozen=True)
class RecordedTest:
    """Record of one test. Times in seconds, by the clocks of `usage`."""

    test: str
    outcome: str
    reason: str = ""
    """Why the test was skipped."""
    start: float = 0.0
    end: float = 0.0
    own_cpu: float = 0.0
    machine_start: float = 0.0
    machine_end: float = 0.0
    servers: int = 0
    """Number of MLflowServers that the test created."""
    worker: str = ""

    @property
    def wall(self) -> float:
        """Seconds from the start of its setup to the end of its teardown."""
        return self.end - self.start


@dataclass(frozen=True)
class RecordedTier:
    """Record of one tier that succeeded, failed, or was interrupted. Times in seconds."""

    name: str
    start: float
    wall: float
    cpu: float
    exit_code: int


def append(file: Path, record: RecordedTest) -> None:
    """Append a record to a file as one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(record)) + "\n")


def begin(folder: Path, suite: str) -> None:
    """Delete all records of the previous run, and store which suite runs."""
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUITE_FILE).write_text(suite)


def suite(folder: Path) -> str:
    """Return the suite that runs or ran last; `test` if none is stored."""
    try:
        return (folder / _SUITE_FILE).read_text()
    except FileNotFoundError:
        return "test"


def write_tier(folder: Path, record: RecordedTier) -> None:
    """Write the record of a tier."""
    file = folder / record.name / _TIER_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(record)) + "\n")


def tiers(folder: Path) -> list[RecordedTier]:
    """Return the tiers that ran, in the order of their start."""
    records = [RecordedTier(**json.loads(file.read_text())) for file in folder.glob(f"*/{_TIER_FILE}")]
    return sorted(records, key=lambda tier: tier.start)


def write_coverage(tier_folder: Path, percent: float) -> None:
    """Write the coverage of the operator's code by a tier."""
    tier_folder.mkdir(parents=True, exist_ok=True)
    (tier_folder / _COVERAGE_FILE).write_text(str(percent))


def coverage(folder: Path, tier: str) -> float | None:
    """Return the coverage by a tier in percent; None if it was not measured."""
    try:
        return float((folder / tier / _COVERAGE_FILE).read_text())
    except FileNotFoundError:
        return None


def tests(folder: Path, tier: str) -> list[RecordedTest]:
    """Return the tests of a tier. Incomplete lines of killed processes are ignored."""
    records = []
    for file in sorted((folder / tier).glob("*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                records.append(RecordedTest(**json.loads(line)))
            except json.JSONDecodeError:
                continue
    return records


def cpu_seconds(records: Sequence[RecordedTest]) -> list[float]:
    """Return the CPU time of each test in the given order: its own, and its share of the machine's other CPU time.

    `records` must contain all tests that ran on the machine at the same time.
    """
    seconds = [record.own_cpu for record in records]
    rates = [record.own_cpu / record.wall if record.wall else 0.0 for record in records]
    moments = sorted(
        [(record.start, record.machine_start, number, True) for number, record in enumerate(records)]
        + [(record.end, record.machine_end, number, False) for number, record in enumerate(records)]
    )
    running: set[int] = set()
    for (start, machine_start, number, starts), (end, machine_end, *_) in pairwise(moments):
        if starts and records[number].wall:
            running.add(number)
        else:
            running.discard(number)
        if not running:
            continue
        own = sum(rates[each] for each in running) * (end - start)
        share = max(0.0, machine_end - machine_start - own) / len(running)
        for other in running:
            seconds[other] += share
    return seconds


def tier_folder() -> Path | None:
    """Return the folder for the records of this process; None outside of `python -m tests.report tier`."""
    folder = os.environ.get(TIER_FOLDER_VARIABLE)
    return Path(folder) if folder else None
