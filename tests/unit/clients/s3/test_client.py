"""A slow S3 store does not block the operator, and buckets share clients."""

from contextlib import closing
from dataclasses import replace

import pytest
from aiohttp import web

from mlflow_operator.clients.s3.client import Bucket, ObjectStores, Timeouts
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError
from tests.unit.clients.s3.conftest import StartServer
from tests.unit.clients.silent_servers import serve, silent

BUCKET = Bucket(
    "http://127.0.0.1:1", "us-east-1", "models", "path", "key", "hunter2", None, "spec.artifacts.s3"
)


async def test_call_times_out_while_its_thread_continues() -> None:
    """A DNS lookup that takes a minute cannot be cancelled; the reconcile must continue without it."""
    with closing(ObjectStores(Timeouts(read=2.0, call=0.01))) as stores:
        async with serve(silent) as port:
            with pytest.raises(TransientError) as error:
                await stores.ensure_bucket(replace(BUCKET, endpoint=f"http://127.0.0.1:{port}"), create=True)
    assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert "does not answer" in error.value.message


def test_buckets_with_the_same_key_share_a_client() -> None:
    """Each client needs memory and a connection; an administrator's key is used for the buckets of all servers."""
    stores = ObjectStores()
    try:
        client = stores._client(BUCKET)
        assert stores._client(replace(BUCKET, name="plots", prefix="team-b", field="other")) is client
        assert stores._client(replace(BUCKET, secret_key="hunter3")) is not client
    finally:
        stores.close()


@pytest.mark.parametrize(
    ("field", "names_endpoint"), [("spec.artifacts.s3", True), ("spec.artifacts.embedded", False)]
)
async def test_message_about_an_unreachable_store_names_only_existing_fields(
    field: str, names_endpoint: bool
) -> None:
    """The spec of an embedded store has no endpoint."""
    with closing(ObjectStores()) as stores, pytest.raises(TransientError) as error:
        await stores.ensure_bucket(replace(BUCKET, field=field), create=True)
    assert ("spec.artifacts.s3.endpoint" in error.value.message) == names_endpoint


@pytest.mark.parametrize(
    "keys", [["team-a/run", "team-b/run"], [f"team-a/{number}" for number in range(300)]]
)
async def test_listing_of_other_objects_deletes_nothing(start_server: StartServer, keys: list[str]) -> None:
    """A user's endpoint may relay requests with the administrator's key to a store, and answer listings itself."""
    methods = []

    async def respond(request: web.Request) -> web.Response:
        methods.append(request.method)
        versions = "".join(f"<Version><Key>{key}</Key><VersionId>1</VersionId></Version>" for key in keys)
        return web.Response(text=f"<ListVersionsResult>{versions}</ListVersionsResult>")

    target = replace(BUCKET, endpoint=await start_server(respond), prefix="team-a")
    with closing(ObjectStores()) as stores, pytest.raises(TransientError) as error:
        await stores.delete_objects(target)
    assert methods == ["GET"]
    assert "The operator deletes none of them" in error.value.message
