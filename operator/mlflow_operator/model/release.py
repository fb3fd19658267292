"""One MLflow release, and the order of versions."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """What the operator knows about an MLflow release without starting its image.

    `schema_head` is the alembic head revision of its migrations. `fast_path`: the launcher and the application of the
    fast path (`Server.fast_path`) support its internals. `stops_writers`: its schema migration requires that no server
    of an earlier release writes to the database. `notes` is for people who upgrade to it.
    """

    version: str
    schema_head: str
    fast_path: bool = False
    stops_writers: bool = False
    notes: str = ""


def version_key(version: str) -> tuple[int, ...]:
    """Sort key of a version: its leading numbers, so that `3.19.0rc1+corp` is sorted like 3.19.0."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
