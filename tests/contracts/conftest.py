"""The stores that the tests in this package use, as containers."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mlflow_operator.clients.s3.client import ObjectStores
from tests.cluster import settings
from tests.contracts import minio, postgres, seaweedfs
from tests.contracts.minio import Store
from tests.contracts.postgres import Instance
from tests.e2e.certificates import CertificateAuthority, create_authority

PINS = settings.read_pins(settings.ROOT / "versions.env")
POSTGRES_URI_VARIABLE = "TEST_POSTGRES"
"""Environment variable with a superuser's URI of another Postgres to test instead. The tests leave objects in it."""


@pytest.fixture(scope="session")
def instance() -> Iterator[Instance]:
    """A Postgres that logs every statement."""
    if uri := os.environ.get(POSTGRES_URI_VARIABLE):
        parts = urlsplit(uri)
        yield Instance(parts.hostname or "", parts.port or 5432, parts.username or "", parts.password or "")
        return
    instance = postgres.start(PINS["IMAGE_POSTGRES"], "-c", "log_statement=all", "-c", "max_wal_size=64MB")
    yield instance
    postgres.stop(instance)


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A MinIO with plain HTTP and a built-in key management service (KMS)."""
    store = minio.start(PINS["IMAGE_MINIO"])
    yield store
    minio.stop(store)


@pytest.fixture(scope="session")
def company_ca() -> CertificateAuthority:
    """A private CA."""
    return create_authority("Company Root")


@pytest.fixture(scope="session")
def tls_store(company_ca: CertificateAuthority) -> Iterator[Store]:
    """A MinIO with a certificate for `localhost` from `company_ca`."""
    store = minio.start(PINS["IMAGE_MINIO"], company_ca)
    yield store
    minio.stop(store)


@pytest.fixture(scope="session")
def seaweedfs_store(test_images: None) -> Iterator[Store]:
    """A SeaweedFS."""
    store = seaweedfs.start(PINS["IMAGE_SEAWEEDFS"])
    yield store
    minio.stop(store)


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's client for object stores."""
    stores = ObjectStores()
    yield stores
    stores.close()
