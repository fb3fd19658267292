"""The operator does not connect to addresses at which clouds serve the credentials of its node."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import aiohttp
import pytest

from mlflow_operator.clients.metadata_addresses import is_refused
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.clients.s3.client import Bucket, ObjectStores, Timeouts
from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

METADATA = "169.254.169.254"
NAME = "metadata.example.com"
TIMEOUT_SECONDS = 1
FIELD = "spec.database.external"


@pytest.fixture(autouse=True)
def _resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves to the address: the user of a server chooses both."""
    resolve = socket.getaddrinfo

    def resolve_name(host: Any, *args: Any, **options: Any) -> Any:
        return resolve(METADATA if host == NAME else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_name)


async def open_database(host: str) -> None:
    """Open a session of Postgres."""
    connection = Connection(host, 80, "mlflow", "user", "password")
    async with Sessions(TIMEOUT_SECONDS).open(connection, None, FIELD, 2 * TIMEOUT_SECONDS):
        pass


async def request_bucket(host: str) -> None:
    """Send a request to S3."""
    bucket = Bucket(f"http://{host}", "us-east-1", "models", "path", "key", "key", None, "spec.artifacts.s3")
    timeouts = Timeouts(TIMEOUT_SECONDS, TIMEOUT_SECONDS, 2 * TIMEOUT_SECONDS)
    with closing(ObjectStores(timeouts)) as stores:
        stores._client(bucket)
        await stores.ensure_bucket(bucket, create=True)


async def request_admin_api(host: str) -> None:
    """Send a request to the admin API of MinIO."""
    admin = Admin(f"http://{host}", AccessKey("root", "secret"), None, "spec.artifacts.s3")
    requests = SignedRequests(aiohttp.ClientTimeout(total=2 * TIMEOUT_SECONDS))
    await MinioAPI(requests).call(admin, AdminRequest("GET", "info-canned-policy", {}))


@pytest.mark.parametrize("host", [METADATA, NAME])
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (open_database, Reason.DATABASE_UNREACHABLE),
        (request_bucket, Reason.ARTIFACT_STORE_UNREACHABLE),
        (request_admin_api, Reason.ARTIFACT_STORE_UNREACHABLE),
    ],
)
async def test_metadata_service_is_not_contacted(
    host: str, call: Callable[[str], Awaitable[None]], reason: Reason
) -> None:
    """The message names the fault, whether the service exists or not."""
    with pytest.raises(ConfigurationError, match="at which clouds serve credentials of their nodes") as error:
        await call(host)
    assert error.value.reason is reason
    assert host in error.value.message


@pytest.mark.parametrize(
    "address", [METADATA, "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "fd00:ec2::254"]
)
def test_metadata_address_is_refused(address: str) -> None:
    """In each notation that a resolver returns."""
    assert is_refused(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "None", "postgres"]
)
def test_other_address_is_accepted(address: str) -> None:
    """Private addresses are those of most stores."""
    assert not is_refused(address)
