"""The programs that tests here are tried on."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mlflow_operator.clients.s3.client import ObjectStores
from tests.cluster import settings
from tests.contracts import minio, postgres, seaweedfs
from tests.contracts.minio import Store
from tests.contracts.postgres import Instance
from tests.e2e.certificates import Authority, authority

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
    found = postgres.start(PINS["IMAGE_POSTGRES"], "-c", "log_statement=all", "-c", "max_wal_size=64MB")
    yield found
    postgres.stop(found)


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A MinIO in plain HTTP, with a key management of its own."""
    found = minio.start(PINS["IMAGE_MINIO"])
    yield found
    minio.stop(found)


@pytest.fixture(scope="session")
def company() -> Authority:
    """A private authority."""
    return authority("Company Root")


@pytest.fixture(scope="session")
def secure_store(company: Authority) -> Iterator[Store]:
    """A MinIO behind a certificate for `localhost` of that authority."""
    found = minio.start(PINS["IMAGE_MINIO"], company)
    yield found
    minio.stop(found)


@pytest.fixture(scope="session")
def weed(test_images: None) -> Iterator[Store]:
    """A SeaweedFS."""
    found = seaweedfs.start(PINS["IMAGE_SEAWEEDFS"])
    yield found
    minio.stop(found)


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's side of object stores."""
    found = ObjectStores()
    yield found
    found.close()
