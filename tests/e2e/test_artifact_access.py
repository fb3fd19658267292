"""Artifacts with each `spec.artifacts.access`. test_proxied tests the default, Proxied."""

from urllib.parse import urlsplit

import pytest
import requests

from mlflow_operator.model.secrets import text_values
from tests.e2e import external_stores
from tests.e2e.external_stores import MinIO, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.large_files import (
    TransferError,
    change_artifacts,
    client_environment,
    peak_memory_bytes,
    round_trip,
    round_trip_in_subprocess,
)
from tests.e2e.mlflow_workload import MIB, Workload, requested_hosts
from tests.e2e.server import Server, small_spec
from tests.e2e.shared_stores import Platform

FILE_BYTES = 200 * MIB
MAX_MEMORY_GROWTH_BYTES = FILE_BYTES // 3
"""Limit for the growth of the server's peak memory. Files that the server writes to its disk count as memory, too."""


def test_direct_and_presigned_access_work(ns: Kube, platform: Platform) -> None:
    """Direct: with the keys in the server's Secret for clients. Presigned: without any key."""
    minio = platform.minio
    ns.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3: Object = {
        "endpoint": minio.endpoint,
        "bucket": f"access-{ns.namespace}",
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    database = platform.stores_spec(ns)["database"]
    server = (
        Server(ns).apply(small_spec(database=database, artifacts={"access": "Direct", "s3": s3})).wait_ready()
    )
    settings, keys = client_environment(server)
    transfer = round_trip_in_subprocess(server, settings | keys, 8 * MIB)
    assert transfer.unchanged
    assert transfer.artifact_uri.startswith(f"s3://{s3['bucket']}/")
    with pytest.raises(TransferError, match="Unable to locate credentials"):
        round_trip_in_subprocess(server, settings, MIB)

    change_artifacts(server, access="Presigned")
    info = requests.get(f"{server.url}/api/3.0/mlflow/server-info", timeout=10).json()
    assert info["multipart_downloads_enabled"] is True
    workload = Workload(server.url)
    run = workload.create_run()
    logged = workload.upload(run, "file.bin", 8 * MIB)
    with requested_hosts() as hosts:
        assert workload.download(run, "file.bin") == logged
    assert urlsplit(minio.endpoint).netloc in hosts
    workload.check_data(workload.log_data())


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="moves 200 MiB each way; test_proxied sends 64 MiB, and the test above small files"
)
def test_large_files_do_not_grow_server_memory(
    ns: Kube, other_ns: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Direct access with the keys for clients, presigned URLs for the public endpoint, and proxied access.

    The store is a SeaweedFS with different addresses for the server and for clients.
    """
    store = external_stores.start_seaweedfs(other_ns)
    ns.apply(secret("seaweedfs", accessKeyID=store.access_key, secretAccessKey=store.secret_key))
    s3: Object = {
        "endpoint": f"http://seaweedfs.{other_ns.namespace}.svc:9000",
        "publicEndpoint": store.endpoint,
        "bucket": "team",
        "prefix": "tracking",
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "seaweedfs"},
    }
    server = Server(ns).apply(small_spec(artifacts={"access": "Direct", "s3": s3})).wait_ready()
    _check_direct_access(server, store)
    # MLflow uploads smaller files through the server
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(FILE_BYTES // 4))
    change_artifacts(server, access="Presigned")
    assert {*text_values(ns.require("Secret", server.names.client)).values()} == {""}
    assert "clientSecretRef" not in server.status
    _check_access_through_server(server, urlsplit(store.endpoint).netloc)
    change_artifacts(server, access="Proxied", s3={"publicEndpoint": None})
    _check_access_through_server(server, None)


def _check_direct_access(server: Server, store: MinIO) -> None:
    settings, keys = client_environment(server)
    assert settings["MLFLOW_S3_ENDPOINT_URL"] == store.endpoint
    before = peak_memory_bytes(server)
    transfer = round_trip_in_subprocess(server, settings | keys, FILE_BYTES)
    assert transfer.unchanged
    assert peak_memory_bytes(server) - before < MAX_MEMORY_GROWTH_BYTES
    assert transfer.artifact_uri.startswith("s3://team/tracking/")
    held = store.client().head_object(
        Bucket="team", Key=f"{transfer.artifact_uri.removeprefix('s3://team/')}/file.bin"
    )
    assert held["ContentLength"] == FILE_BYTES
    with pytest.raises(TransferError, match="Unable to locate credentials"):
        round_trip_in_subprocess(server, settings, MIB)


def _check_access_through_server(server: Server, store: str | None) -> None:
    """Upload and download a file; the client only sends requests to the server and, with presigned URLs, to `store`."""
    round_trip(server.url, MIB)
    before = peak_memory_bytes(server)
    with requested_hosts() as hosts:
        assert round_trip(server.url, FILE_BYTES).unchanged
    assert hosts == {urlsplit(server.url).netloc, *([store] if store else [])}
    assert peak_memory_bytes(server) - before < MAX_MEMORY_GROWTH_BYTES
    workload = Workload(server.url)
    workload.check_data(workload.log_data("signed" if store else "proxied"))
