"""The programs that tests here are tried on."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.cluster import settings
from tests.providers import postgres
from tests.providers.postgres import Instance

PINS = settings.read_pins(settings.ROOT / "versions.env")
ANOTHER = "TEST_POSTGRES"
"""Variable with the URI of a superuser of a Postgres of another version to try instead; it is left littered."""


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    """A Postgres that logs every statement."""
    if another := os.environ.get(ANOTHER):
        parts = urlsplit(another)
        yield Instance(parts.hostname or "", parts.port or 5432, parts.username or "", parts.password or "")
        return
    found = postgres.start(PINS["IMAGE_POSTGRES"], "-c", "log_statement=all")
    yield found
    postgres.stop(found)
