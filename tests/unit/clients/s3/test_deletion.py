"""Deletion under a prefix, against stores whose listings lie: no other key is ever deleted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.model.platform import owners_prefix
from mlflow_operator.status.errors import TransientError
from tests.unit.clients.s3.conftest import StartServer

PREFIX = "mlflow/team-a/tracking"
OWN = f"{PREFIX}/0/run/model.pkl"
FOREIGN = (
    "",
    PREFIX,
    f"{PREFIX}2/model",
    f"{PREFIX}-old/model",
    "mlflow/team-a/other/model",
    "mlflow/team-b/tracking/model",
    "mlflow/team-a/",
    f"/{OWN}",
    f"x/{OWN}",
    OWN.upper(),
    "_mlflow-operator/owners/mlflow!team-b!tracking/zzz-made-by-mlflow-operator",
    "platform-backups/dump",
)
"""Keys that are not the server's."""


@dataclass
class LyingStore:
    """A store that lists what it likes. `deleted` are the keys of all requests that delete something."""

    versions: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    supports_versions: bool = True
    deleted: list[str] = field(default_factory=list)

    async def respond(self, request: web.Request) -> web.Response:
        """Answer the request."""
        if request.method == "POST" and "delete" in request.query:
            self.deleted += re.findall("<Key>(.*?)</Key>", await request.text())
            self.versions, self.markers = [], []
            return _xml("<DeleteResult/>")
        assert request.method == "GET", "only listings are read"
        assert "uploads" not in request.query, "incomplete uploads of others are not touched"
        if "versions" in request.query:
            return self._list_versions()
        entries = "".join(f"<Contents>{_key(key)}</Contents>" for key in self.versions)
        return _xml(f"<ListBucketResult>{entries}</ListBucketResult>")

    def _list_versions(self) -> web.Response:
        if not self.supports_versions:
            return web.Response(status=501, text="<Error><Code>NotImplemented</Code></Error>")
        versions = "".join(f"<Version>{_key(key)}<VersionId>1</VersionId></Version>" for key in self.versions)
        markers = "".join(
            f"<DeleteMarker>{_key(key)}<VersionId>2</VersionId></DeleteMarker>" for key in self.markers
        )
        return _xml(f"<ListVersionsResult>{versions}{markers}</ListVersionsResult>")


def _key(key: str) -> str:
    return f"<Key>{escape(key)}</Key>" if key else ""


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's client."""
    stores = ObjectStores(page_size=4)
    yield stores
    stores.close()


async def bucket_in(store: LyingStore, start_server: StartServer, prefix: str = PREFIX) -> Bucket:
    """A server's bucket in the store."""
    endpoint = await start_server(store.respond)
    return Bucket(endpoint, "us-east-1", "mlflow", "path", "key", "secret", None, "spec.artifacts.s3", prefix)


@pytest.mark.parametrize("kind", ["versions", "markers", "objects"])
@pytest.mark.parametrize("foreign", FOREIGN)
async def test_foreign_key_in_a_listing_is_not_deleted(
    stores: ObjectStores, start_server: StartServer, foreign: str, kind: str
) -> None:
    """Nor is anything else of such a listing: the store is not what it seems to be."""
    store = LyingStore([OWN], supports_versions=kind != "objects")
    (store.markers if kind == "markers" else store.versions).append(foreign)
    bucket = await bucket_in(store, start_server)
    with pytest.raises(TransientError, match="deletes none of them"):
        await stores.delete_objects(bucket)
    assert store.deleted == []


async def test_listing_with_more_keys_than_requested_is_not_deleted(
    stores: ObjectStores, start_server: StartServer
) -> None:
    store = LyingStore([f"{OWN}{number}" for number in range(5)])
    with pytest.raises(TransientError, match="more than requested"):
        await stores.delete_objects(await bucket_in(store, start_server))
    assert store.deleted == []


@pytest.mark.parametrize("prefix", [PREFIX, owners_prefix(PREFIX)], ids=["artifacts", "marker"])
async def test_own_keys_are_deleted(stores: ObjectStores, start_server: StartServer, prefix: str) -> None:
    store = LyingStore([f"{prefix}/a"], [f"{prefix}/b"])
    await stores.delete_objects(await bucket_in(store, start_server, prefix))
    assert store.deleted == [f"{prefix}/a", f"{prefix}/b"]


SEGMENTS = st.sampled_from(
    ["mlflow", "team-a", "team-b", "tracking", "tracking2", "_mlflow-operator", ".", "..", ""]
)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KEYS, max_size=3), st.lists(KEYS, max_size=1), st.booleans())
async def test_random_listing_deletes_only_under_the_prefix(
    stores: ObjectStores,
    start_server: StartServer,
    versions: list[str],
    markers: list[str],
    supports_versions: bool,
) -> None:
    store = LyingStore(versions, markers, supports_versions=supports_versions)
    try:
        await stores.delete_objects(await bucket_in(store, start_server))
    except TransientError:
        assert store.deleted == []
    assert all(key.startswith(f"{PREFIX}/") for key in store.deleted)
