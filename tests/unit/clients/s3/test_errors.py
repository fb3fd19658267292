"""Error responses of S3 stores that the stores in tests/contracts do not send."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp import web

from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.unit.clients.s3.conftest import StartServer

Responses = dict[str, tuple[int, str]]
Store = Callable[[Responses], Awaitable[Bucket]]


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's client."""
    stores = ObjectStores()
    yield stores
    stores.close()


@pytest.fixture
def store(start_server: StartServer) -> Store:
    """A fake store with one response, HTTP status and S3 error code, per HTTP method."""

    async def start(responses: Responses) -> Bucket:
        async def respond(request: web.Request) -> web.Response:
            status, code = responses[request.method]
            text = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if code else ""
            return web.Response(status=status, text=text, content_type="application/xml")

        endpoint = await start_server(respond)
        return Bucket(endpoint, "us-east-1", "models", "path", "key", "hunter2", None, "spec.artifacts.s3")

    return start


NOT_FOUND = (404, "NoSuchBucket")


@pytest.mark.parametrize(
    ("responses", "error_type", "reason", "fragment"),
    [
        (
            {"GET": NOT_FOUND, "PUT": (409, "BucketAlreadyExists")},
            ConfigurationError,
            Reason.BUCKET_ACCESS_DENIED,
            "belongs to another account",
        ),
        (
            {"GET": NOT_FOUND, "PUT": (409, "BucketAlreadyOwnedByYou")},
            TransientError,
            Reason.PROGRESSING,
            "is being created",
        ),
        (
            {"GET": NOT_FOUND, "PUT": (409, "OperationAborted")},
            TransientError,
            Reason.PROGRESSING,
            "is being created",
        ),
        (
            {"GET": (403, "RequestTimeTooSkewed")},
            ConfigurationError,
            Reason.ARTIFACT_STORE_UNREACHABLE,
            "clocks",
        ),
        ({"GET": (503, "SlowDown")}, TransientError, Reason.ARTIFACT_STORE_UNREACHABLE, "HTTP 503"),
        (
            {"GET": (400, "IllegalLocation")},
            ConfigurationError,
            Reason.BUCKET_ACCESS_DENIED,
            "spec.artifacts.s3.region",
        ),
        ({"GET": (403, "Weird")}, ConfigurationError, Reason.BUCKET_ACCESS_DENIED, "s3:ListBucket"),
        ({"GET": (418, "Teapot")}, TransientError, Reason.ARTIFACT_STORE_UNREACHABLE, "HTTP 418"),
    ],
)
async def test_error_response_becomes_reconcile_error(  # noqa: PLR0917
    store: Store,
    stores: ObjectStores,
    responses: Responses,
    error_type: type[ReconcileError],
    reason: Reason,
    fragment: str,
) -> None:
    with pytest.raises(error_type) as error:
        await stores.ensure_bucket(await store(responses), create=True)
    assert error.value.reason is reason
    assert fragment in error.value.message
    assert "hunter2" not in error.value.message
