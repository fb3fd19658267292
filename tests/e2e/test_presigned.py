"""Presigned: the server signs, and clients that reach the store take artifacts from it themselves."""

from urllib.parse import urlsplit

import requests

from tests.e2e import stores
from tests.e2e.kube import Kube
from tests.e2e.scientist import MIB, Scientist, hosts_asked
from tests.e2e.server import Server, small
from tests.e2e.stores import secret


def test_clients_take_artifacts_from_the_store_itself(ns: Kube, other_ns: Kube) -> None:
    """The owner's choice for stores that clients reach: the server's memory and network are spared."""
    minio = stores.minio(other_ns, None)
    ns.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3 = {
        "endpoint": minio.endpoint,
        "bucket": "presigned",
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    server = Server(ns).apply(small(artifacts={"access": "Presigned", "s3": s3})).ready()

    info = requests.get(f"{server.url}/api/3.0/mlflow/server-info", timeout=10).json()
    assert info["multipart_downloads_enabled"] is True
    scientist = Scientist(server.url)
    run = scientist.run()
    logged = scientist.upload(run, "file.bin", 8 * MIB)
    with hosts_asked() as asked:
        assert scientist.download(run, "file.bin") == logged
    assert urlsplit(minio.endpoint).netloc in asked
    scientist.finds(scientist.work())
