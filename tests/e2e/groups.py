"""Groups of tests that must not run in parallel: pytest-xdist gives all tests of a group to one worker.

A module with a constant `GROUP` belongs to the group of that name: its tests share a server with each other or with
other modules of the group. Every other test forms its own group.

pytest-xdist's own groups (`--dist loadgroup`) have no effect under pytest 9.2: xdist 3.8 stores them in an attribute
that pytest no longer reads.
"""

import re
from functools import cache

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.cluster import settings

SHARED = "shared"
"""Group of the modules whose tests use the shared server."""

_GROUP_CONSTANT = re.compile(r'^GROUP = "(\w+)"$', re.MULTILINE)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Schedules groups of tests in collection order."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0]) or nodeid


@cache
def group(path: str) -> str | None:
    """Return the group of a module, or None; `path` is relative to the checkout."""
    # Parses the source: the process that schedules the tests does not import them.
    found = _GROUP_CONSTANT.search((settings.ROOT / path).read_text(encoding="utf-8"))
    return found[1] if found else None
