"""What stores say that none that runs here can be brought to say."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import web

from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

Answers = dict[str, tuple[int, str]]
Store = Callable[[Answers], Awaitable[Bucket]]


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's side."""
    found = ObjectStores()
    yield found
    found.close()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store that has one answer, a status and a code, for each HTTP method."""
    runners = []

    async def start(answers: Answers) -> Bucket:
        async def answer(request: web.Request) -> web.Response:
            status, code = answers[request.method]
            text = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if code else ""
            return web.Response(status=status, text=text, content_type="application/xml")

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return Bucket(endpoint, "us-east-1", "models", "path", "key", "hunter2", None, "spec.artifacts.s3")

    yield start
    for runner in runners:
        await runner.cleanup()


GONE = (404, "NoSuchBucket")


@pytest.mark.parametrize(
    ("answers", "kind", "reason", "words"),
    [
        (
            {"GET": GONE, "PUT": (409, "BucketAlreadyExists")},
            ConfigurationError,
            Reason.BUCKET_ACCESS_DENIED,
            "belongs to another account",
        ),
        (
            {"GET": GONE, "PUT": (409, "BucketAlreadyOwnedByYou")},
            TransientError,
            Reason.PROGRESSING,
            "is being made",
        ),
        (
            {"GET": GONE, "PUT": (409, "OperationAborted")},
            TransientError,
            Reason.PROGRESSING,
            "is being made",
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
async def test_each_refusal_has_its_sentence(  # noqa: PLR0917
    store: Store,
    stores: ObjectStores,
    answers: Answers,
    kind: type[ReconcileError],
    reason: Reason,
    words: str,
) -> None:
    with pytest.raises(kind) as told:
        await stores.ensure_bucket(await store(answers), create=True)
    assert told.value.reason is reason
    assert words in told.value.message
    assert "hunter2" not in told.value.message
