"""Artifacts by all three ways, on a SeaweedFS that its server and its clients reach by different addresses."""

from urllib.parse import urlsplit

import pytest

from mlflow_operator.core.credentials import decoded
from tests.e2e import stores
from tests.e2e.kube import Kube, Object
from tests.e2e.scientist import MIB, Scientist, hosts_asked
from tests.e2e.server import Server, small
from tests.e2e.stores import MinIO, secret
from tests.e2e.transfer import TransferError, by_a_stranger, change, given, peak, there_and_back

SIZE = 200 * MIB
LITTLE = SIZE // 3
"""How much more memory the server may have taken at its peak; what it writes to its disk is in memory, too."""


def test_files_go_each_way_and_none_through_the_servers_memory(
    ns: Kube, other_ns: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Direct with the keys that clients are given, by URLs signed for the public address, and through the server.

    Three servers would take as long as all the rest, so one is changed from way to way.
    """
    store = stores.seaweedfs(other_ns)
    ns.apply(secret("seaweedfs", accessKeyID=store.access_key, secretAccessKey=store.secret_key))
    s3: Object = {
        "endpoint": f"http://seaweedfs.{other_ns.namespace}.svc:9000",
        "publicEndpoint": store.endpoint,
        "bucket": "team",
        "prefix": "tracking",
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "seaweedfs"},
    }
    server = Server(ns).apply(small(artifacts={"access": "Direct", "s3": s3})).ready()
    _direct(server, store)
    # MLflow has smaller ones pass through the server
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(SIZE // 4))
    change(server, access="Presigned")
    assert {*decoded(ns.need("Secret", server.names.client)).values()} == {""}
    assert "clientSecretRef" not in server.status
    _through(server, urlsplit(store.endpoint).netloc)
    change(server, access="Proxied", s3={"publicEndpoint": None})
    _through(server, None)


def _direct(server: Server, store: MinIO) -> None:
    settings, keys = given(server)
    assert settings["MLFLOW_S3_ENDPOINT_URL"] == store.endpoint
    before = peak(server)
    trip = by_a_stranger(server, settings | keys, SIZE)
    assert trip.same
    assert peak(server) - before < LITTLE
    assert trip.uri.startswith("s3://team/tracking/")
    held = store.client().head_object(Bucket="team", Key=f"{trip.uri.removeprefix('s3://team/')}/file.bin")
    assert held["ContentLength"] == SIZE
    with pytest.raises(TransferError, match="Unable to locate credentials"):
        by_a_stranger(server, settings, MIB)


def _through(server: Server, store: str | None) -> None:
    """Up and down again, asking nobody but the server and, by signed URLs, `store`."""
    there_and_back(server.url, MIB)
    before = peak(server)
    with hosts_asked() as asked:
        assert there_and_back(server.url, SIZE).same
    assert asked == {urlsplit(server.url).netloc, *([store] if store else [])}
    assert peak(server) - before < LITTLE
    scientist = Scientist(server.url)
    scientist.finds(scientist.work("signed" if store else "proxied"))
