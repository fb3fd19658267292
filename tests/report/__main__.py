"""`python -m tests.report begin SUITE | tier NAME -- COMMAND... | show`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.report import budgets, records, summary, usage

INTERRUPTED_EXIT_CODE = 130
COVERAGE_TIER = "unit"
"""The tier whose coverage is measured."""


def tier(folder: Path, name: str, command: Sequence[str]) -> int:
    """Run a command as one tier and return its exit code. After Ctrl-C, waits until the command has ended."""
    print(f"\n--- {name} ---", flush=True)
    start = usage.read()
    env = {**os.environ, records.TIER_FOLDER_VARIABLE: str(folder / name)}
    with subprocess.Popen(command, env=env) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            code = INTERRUPTED_EXIT_CODE
    end = usage.read()
    record = records.RecordedTier(
        name, start.time, end.time - start.time, end.machine_cpu - start.machine_cpu, code
    )
    records.write_tier(folder, record)
    return code


def show(folder: Path) -> None:
    """Print the report."""
    tiers = records.tiers(folder)
    tests = {tier.name: records.tests(folder, tier.name) for tier in tiers}
    coverage_percent = records.coverage(folder, COVERAGE_TIER)
    for line in summary.lines(tiers, tests, budgets.of_suite(records.suite(folder)), coverage_percent):
        print(line)


def main(argv: Sequence[str]) -> int:
    """Run a subcommand. `tier` returns the exit code of its command, the others return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.report", description="Measure the test tiers.")
    commands = parser.add_subparsers(dest="action", required=True)
    begin = commands.add_parser("begin", help="delete the records of the previous run")
    begin.add_argument("suite", choices=["test", "test-all"])
    run = commands.add_parser("tier", help="run a command as one tier and measure it")
    run.add_argument("name")
    run.add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("show", help="print the report")
    arguments = parser.parse_args(argv)
    if arguments.action == "begin":
        records.begin(records.FOLDER, arguments.suite)
    if arguments.action == "show":
        show(records.FOLDER)
    if arguments.action == "tier":
        command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
        if not command:
            parser.error("tier needs a command")
        return tier(records.FOLDER, arguments.name, command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
