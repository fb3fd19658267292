"""What is recorded per test and per tier, as files in out/report/."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "out" / "report"
TIER_FOLDER = "MLFLOW_OPERATOR_TEST_RECORDS"
"""Environment variable with the folder for the records of the tier that runs."""

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_SUITE, _TIER = "suite", "tier.json"


@dataclass(frozen=True)
class RecordedTest:
    """One test. Times in seconds, by the clocks of `usage`."""

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
    """MLflowServers that it created."""
    worker: str = ""

    @property
    def wall(self) -> float:
        """Seconds from the start of its setup to the end of its teardown."""
        return self.end - self.start


@dataclass(frozen=True)
class RecordedTier:
    """One tier that ran to its end, failed, or was interrupted."""

    name: str
    start: float
    wall: float
    cpu: float
    exit_code: int


def append(file: Path, record: RecordedTest) -> None:
    """Adds one line to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(record)) + "\n")


def begin(folder: Path, suite: str) -> None:
    """Removes all records of the previous run and notes which suite runs."""
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUITE).write_text(suite)


def suite(folder: Path) -> str:
    """The suite that runs or ran last; `test` where none was noted."""
    try:
        return (folder / _SUITE).read_text()
    except FileNotFoundError:
        return "test"


def finish(folder: Path, record: RecordedTier) -> None:
    """Notes how a tier ended."""
    file = folder / record.name / _TIER
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(record)) + "\n")


def tiers(folder: Path) -> list[RecordedTier]:
    """The tiers that ran, in the order in which they started."""
    found = [RecordedTier(**json.loads(file.read_text())) for file in folder.glob(f"*/{_TIER}")]
    return sorted(found, key=lambda tier: tier.start)


def tests(folder: Path, tier: str) -> list[RecordedTest]:
    """The tests of a tier. A line that a killed process did not finish is left out."""
    found = []
    for file in sorted((folder / tier).glob("*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                found.append(RecordedTest(**json.loads(line)))
            except json.JSONDecodeError:
                continue
    return found


def cpu_seconds(records: Sequence[RecordedTest]) -> list[float]:
    """CPU time of each test, in the order given: its own, and its share of what the machine used beyond that.

    All tests that ran on the machine at the same time must be among `records`.
    """
    found = [record.own_cpu for record in records]
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
        for each in running:
            found[each] += share
    return found


def tier_folder() -> Path | None:
    """Where this process shall write its records; None outside of `python -m tests.report tier`."""
    folder = os.environ.get(TIER_FOLDER)
    return Path(folder) if folder else None
