"""Artifacts by each way of `spec.artifacts.access`; test_proxied tests the default one, through the server."""

from urllib.parse import urlsplit

import pytest
import requests

from mlflow_operator.model.secrets import decoded
from tests.e2e import external_stores
from tests.e2e.external_stores import MinIO, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.large_files import TransferError, by_a_stranger, change, given, peak, there_and_back
from tests.e2e.mlflow_workload import MIB, Scientist, hosts_asked
from tests.e2e.server import Server, small
from tests.e2e.shared_stores import Platform

SIZE = 200 * MIB
LITTLE = SIZE // 3
"""How much more memory the server may have taken at its peak; what it writes to its disk is in memory, too."""


def test_clients_reach_the_store_with_keys_or_by_signed_urls(ns: Kube, platform: Platform) -> None:
    """Direct: with the keys that the server's Secret for clients holds. Presigned: with no key at all."""
    minio = platform.minio
    ns.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3: Object = {
        "endpoint": minio.endpoint,
        "bucket": f"access-{ns.namespace}",
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    database = platform.stores(ns)["database"]
    server = Server(ns).apply(small(database=database, artifacts={"access": "Direct", "s3": s3})).ready()
    settings, keys = given(server)
    trip = by_a_stranger(server, settings | keys, 8 * MIB)
    assert trip.same
    assert trip.uri.startswith(f"s3://{s3['bucket']}/")
    with pytest.raises(TransferError, match="Unable to locate credentials"):
        by_a_stranger(server, settings, MIB)

    change(server, access="Presigned")
    info = requests.get(f"{server.url}/api/3.0/mlflow/server-info", timeout=10).json()
    assert info["multipart_downloads_enabled"] is True
    scientist = Scientist(server.url)
    run = scientist.run()
    logged = scientist.upload(run, "file.bin", 8 * MIB)
    with hosts_asked() as asked:
        assert scientist.download(run, "file.bin") == logged
    assert urlsplit(minio.endpoint).netloc in asked
    scientist.finds(scientist.work())


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="moves 200 MiB each way; test_proxied sends 64 MiB, and the test above small files"
)
def test_files_go_each_way_and_none_through_the_servers_memory(
    ns: Kube, other_ns: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Direct with the keys that clients are given, by URLs signed for the public address, and through the server.

    On a SeaweedFS that its server and its clients reach by different addresses.
    """
    store = external_stores.seaweedfs(other_ns)
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
