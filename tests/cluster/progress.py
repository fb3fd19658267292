"""Steps with a name, a check whether they are needed, and an end a user can read."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .shell import Failed, Shell

LAST_LINES = 15
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Step:
    """One thing that must be so. `there` asks whether it is; `make` makes it, and may be run again."""

    name: str
    there: Callable[[], bool]
    make: Callable[[], None]
    hint: str = ""


def walk(steps: Iterable[Step], sh: Shell, logs: Path, begin: float) -> bool:
    """Run what is needed, in order, a line each. Returns False, with the reason printed, if one fails.

    A step is asked for when the ones before it are done: what there is to do may depend on them.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for step in steps:
        print(f"  {step.name:<40}", end=" ", flush=True)
        sh.log = logs / f"{step.name.split(':')[0].replace(' ', '-').lower()}.log"
        started = time.monotonic()
        try:
            if step.there():
                print("there", flush=True)
                continue
            sh.log.write_text("")
            step.make()
        except Failed as fault:
            print(f"failed after {time.monotonic() - started:.0f} s")
            _explain(fault, step, sh.log)
            return False
        now = time.monotonic()
        print(f"{now - started:6.1f} s   ({now - begin:.0f} s in all)", flush=True)
    return True


def _explain(fault: Failed, step: Step, log: Path) -> None:
    text = COLOUR.sub("", log.read_text(errors="replace")) if log.exists() else ""
    lines = text.splitlines()[-LAST_LINES:]
    print("".join(f"        | {line}\n" for line in lines), end="")
    print(f"\n{step.name}: {fault}.")
    if lines:
        print(f"The whole log: {log}")
    hint = fault.hint or step.hint
    print(hint or "Run the same command again: what is finished stays.")
