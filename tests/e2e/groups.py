"""Which tests never run at the same time: those of one group, given to one worker of pytest-xdist.

A module with a constant `GROUP` belongs to the group of that name: its tests share a server, with each other or with
other modules of the group. Every other test is a group of its own.

pytest-xdist's own groups (`--dist loadgroup`) have no effect under pytest 9.2: xdist 3.8 writes them into an attribute
that pytest does not read any more.
"""

import re
from functools import cache

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.cluster import settings

SHARED = "shared"
"""The group of the modules whose tests use the shared server."""

_CONSTANT = re.compile(r'^GROUP = "(\w+)"$', re.MULTILINE)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Deals out groups of tests in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0]) or nodeid


@cache
def group(path: str) -> str | None:
    """The group of a module; `path` is relative to the checkout."""
    # read, not imported: the process that deals out tests imports none of them
    found = _CONSTANT.search((settings.ROOT / path).read_text(encoding="utf-8"))
    return found[1] if found else None
