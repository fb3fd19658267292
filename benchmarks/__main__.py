"""`python -m benchmarks [take|docs]`: what `make bench` and `make bench-docs` call."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.settings import ROOT
from tests.e2e.kube import CommandError

from benchmarks import (
    artifacts,
    at_rest,
    backup,
    cold_start,
    drift,
    external_start,
    no_failed_request,
    provisioned,
    report,
    scale,
    throughput,
    upgrade,
)
from benchmarks.lab import Lab
from benchmarks.rows import Row

FIGURES: dict[str, Callable[[Lab], list[Row]]] = {
    "cold-start": cold_start.take,
    "external-start": external_start.take,
    "drift": drift.take,
    "throughput": throughput.take,
    "no-failed-request": no_failed_request.take,
    "at-rest": at_rest.take,
    "scale": scale.take,
    "provisioned": provisioned.take,
    "artifacts": artifacts.take,
    "upgrade": upgrade.take,
    "backup": backup.take,
}
"""In the order in which they are taken."""

ROUNDS = 5
PAGE = ROOT / "docs" / "figures.md"
PICTURE = ROOT / "docs" / "images" / "servers.svg"


def take(asked: argparse.Namespace) -> int:
    """Takes the figures; one that fails does not keep the others from being taken."""
    chosen = [name for name in FIGURES if not asked.only or name in asked.only]
    lab = Lab(asked.rounds, asked.quick)
    build = lab.build()
    lab.install()
    failed, taken = [], dict[str, list[Row]]()
    for name in chosen:
        if asked.resume and (known := report.load(lab.out, name, build)) is not None:
            taken[name] = known
            lab.say(f"{name}: taken before, of this very build")
            continue
        began = time.monotonic()
        lab.say(f"{name} ...")
        try:
            taken[name] = FIGURES[name](lab)
        except (
            AssertionError, CommandError, OSError, RuntimeError, TimeoutError, subprocess.SubprocessError
        ) as fault:  # fmt: skip
            failed.append(name)
            lab.say(f"{name} could not be taken: {fault}")
            continue
        report.save(lab.out, name, build, taken[name])
        lab.say(f"{name}: taken in {time.monotonic() - began:.0f} s")
    rows = [row for name in taken for row in taken[name]]
    lab.out.mkdir(parents=True, exist_ok=True)
    (lab.out / "figures.md").write_text(report.markdown(rows))
    print(f"\n{report.text(rows)}\n\nAlso in {lab.out}, with every sample. Taken of {build}.")
    for name in failed:
        print(f"NOT TAKEN: {name}. Try it alone: make bench ONLY={name}")
    return 1 if failed or any(row.met is False for row in rows) else 0


def docs(_: argparse.Namespace) -> int:
    """Puts the last run's table and picture into the docs."""
    folder = ROOT / "out" / "bench"
    rows = [row for name in FIGURES for row in report.load(folder, name) or ()]
    if not rows:
        print("There are no figures yet. Run: make bench", file=sys.stderr)
        return 1
    PAGE.write_text(report.into(PAGE.read_text(), report.markdown(rows)))
    picture = Path(folder, "servers.svg")
    if picture.exists():
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, PICTURE)
    print(f"{PAGE.relative_to(ROOT)} holds the figures of {folder}.")
    return 0


def main() -> int:
    """Exit code 0 when every figure was taken and is as wanted, 1 when not, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures, side by side.")
    parser.add_argument("command", choices=("take", "docs"))
    parser.add_argument("--only", nargs="*", choices=FIGURES, help="these figures alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often what takes seconds is taken")
    parser.add_argument(
        "--quick", action="store_true", help="shorten what takes minutes; for a look, not a figure"
    )
    parser.add_argument("--resume", action="store_true", help="keep what was taken of this very build")
    asked = parser.parse_args()
    try:
        return {"take": take, "docs": docs}[asked.command](asked)
    except (FileNotFoundError, CommandError) as missing:
        print(f"{missing}\nThe test cluster does not answer. Run: make cluster", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
