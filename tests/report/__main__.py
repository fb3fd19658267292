"""`python -m tests.report begin SUITE | tier NAME -- COMMAND... | show`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.report import budgets, records, summary, usage

INTERRUPTED = 130


def tier(folder: Path, name: str, command: Sequence[str]) -> int:
    """Runs a command as one tier and returns its exit code. A command that Ctrl-C ends is waited for."""
    print(f"\n--- {name} ---", flush=True)
    start = usage.read()
    env = {**os.environ, records.TIER_FOLDER: str(folder / name)}
    with subprocess.Popen(command, env=env) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            code = INTERRUPTED
    end = usage.read()
    record = records.RecordedTier(
        name, start.time, end.time - start.time, end.machine_cpu - start.machine_cpu, code
    )
    records.finish(folder, record)
    return code


def show(folder: Path) -> None:
    """Prints the report."""
    tiers = records.tiers(folder)
    tests = {found.name: records.tests(folder, found.name) for found in tiers}
    for line in summary.lines(tiers, tests, budgets.of_suite(records.suite(folder))):
        print(line)


def main(argv: Sequence[str]) -> int:
    """`tier` returns the exit code of its command, the others 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.report", description="Measure the tiers of tests.")
    commands = parser.add_subparsers(dest="does", required=True)
    begin = commands.add_parser("begin", help="remove the records of the previous run")
    begin.add_argument("suite", choices=["test", "test-all"])
    run = commands.add_parser("tier", help="run a command as one tier and measure it")
    run.add_argument("name")
    run.add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("show", help="print the report")
    asked = parser.parse_args(argv)
    if asked.does == "begin":
        records.begin(records.FOLDER, asked.suite)
    if asked.does == "show":
        show(records.FOLDER)
    if asked.does == "tier":
        command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
        if not command:
            parser.error("tier needs a command")
        return tier(records.FOLDER, asked.name, command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
