"""Clocks that are read when a test starts and when it ends.

CPU time of a test consists of two parts. The first is exact: the CPU time of the process that runs the test, and of its
child processes that have exited. The second covers what works for the test elsewhere, such as containers and the pods
of the test cluster: CPU time of the whole machine from /proc/stat, less the first part of all running tests, divided
equally among the tests that run at that moment (`records.cpu_seconds`). So one method serves all tiers. On a machine
that is busy with something else, that work is included.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """All clocks at one moment, in seconds."""

    time: float
    """Monotonic and the same in all processes of the machine."""
    own_cpu: float
    """CPU time of this process and of its child processes that have exited."""
    machine_cpu: float
    """CPU time of all processes since the machine started; 0 where /proc/stat does not exist."""


def read() -> Reading:
    """The clocks now."""
    spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(each.ru_utime + each.ru_stime for each in spent)
    return Reading(time.monotonic(), own, machine_cpu())


def machine_cpu() -> float:
    """CPU time that all processes used since the machine started, in seconds."""
    try:
        return busy_seconds(_STAT.read_text().partition("\n")[0])
    except OSError:
        return 0.0


def busy_seconds(line: str) -> float:
    """The same from the first line of /proc/stat: user, nice, system, irq and softirq, without idle time and steal."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS
