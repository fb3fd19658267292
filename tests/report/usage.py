"""Clocks that are read at the start and at the end of a test.

The CPU time of a test has two parts. The first is exact: the CPU time of the process that runs the test, and of its
child processes that have exited. The second covers work of other processes, such as containers and the pods of the
test cluster: the CPU time of the whole machine from /proc/stat, less the first part of all running tests, divided
equally among the tests that run at that time (`records.cpu_seconds`). So the same method is used for all tiers. If the
machine does other work, that is included.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_STAT_FILE = Path("/proc/stat")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """All clocks at one time, in seconds."""

    time: float
    """Monotonic time, which is the same in all processes of the machine."""
    own_cpu: float
    """CPU time of this process and of its child processes that have exited."""
    machine_cpu: float
    """CPU time of all processes since the machine started; 0 if /proc/stat does not exist."""


def read() -> Reading:
    """Read the clocks."""
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return Reading(time.monotonic(), own, machine_cpu())


def machine_cpu() -> float:
    """Return the CPU time of all processes since the machine started, in seconds."""
    try:
        return busy_seconds(_STAT_FILE.read_text().partition("\n")[0])
    except OSError:
        return 0.0


def busy_seconds(line: str) -> float:
    """Parse the first line of /proc/stat: user, nice, system, irq and softirq, without idle and steal time."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS_PER_SECOND
