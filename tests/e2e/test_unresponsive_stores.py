"""Stores that are slow, fall silent or tear every connection: told, mended by themselves, and nobody else's trouble."""

import pytest

from tests.e2e import operator_release, timeouts, toxiproxy
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform
from tests.e2e.toxiproxy import Way

GROUP = "shared"

NAME, PASSWORD = "slow", "slow's own"
MANY = 12
"""More than the operator begins to look at at a time."""


@pytest.mark.second_images
@pytest.mark.timeout(600)
@pytest.mark.long_running(
    reason="outages; tests/unit/clients/test_timeouts.py and test_queue hold the same promises to sockets and a clock"
)
def test_silent_stores_are_reported_and_delay_no_other_server(
    ns: Kube, platform: Platform, shared: Server
) -> None:
    """One server on stores behind a bad line, then many beside it, and one elsewhere that notices nothing."""
    platform.make_migrated_database(NAME, PASSWORD)
    store = f"minio.{platform.kube.namespace}.svc:9000"
    base, files = toxiproxy.start(ns, f"{platform.postgres.host}:5432", store)
    ns.apply(
        secret("database", username=NAME, password=PASSWORD),
        secret("store", accessKeyID=platform.minio.access_key, secretAccessKey=platform.minio.secret_key),
    )
    server = Server(ns).apply(spec(base, files)).ready()
    pod, faults = server.pod()["metadata"]["uid"], Faults(server)

    for way in (base, files):
        way.silent()
    server.look()
    faults.told("DatabaseReady", "DatabaseUnreachable", f"{base.host}:{base.port}", "does not answer in time")
    faults.told("ArtifactStoreReady", "ArtifactStoreUnreachable", "does not answer in time")
    many_hold_up_nobody(ns, base, files, shared)

    for way in (base, files):
        way.torn()
    server.look()
    faults.told("DatabaseReady", "DatabaseUnreachable", f"{base.host}:{base.port}", "can't be reached")
    faults.told("ArtifactStoreReady", "ArtifactStoreUnreachable", "can't be reached")

    base.slow(6000)
    files.slow(15000)
    server.look()
    faults.told("DatabaseReady", "DatabaseUnreachable", "does not answer in time")
    faults.told("ArtifactStoreReady", "ArtifactStoreUnreachable", "does not answer in time")

    for way in (base, files):
        way.mended()
    server.look()
    server.ready(within=timeouts.NOTICED)
    assert server.pod()["metadata"]["uid"] == pod, "a pod was moved for what no pod can mend"


def spec(base: Way, files: Way) -> Object:
    """A server on both stores."""
    return small(
        database={
            "external": {
                "host": base.host,
                "databaseName": NAME,
                "credentialsSecretRef": {"name": "database"},
            }
        },
        artifacts={
            "s3": {
                "endpoint": f"http://{files.host}:{files.port}",
                "bucket": "behind-a-bad-line",
                "credentialsSecretRef": {"name": "store"},
            }
        },
    )


def many_hold_up_nobody(ns: Kube, base: Way, files: Way, elsewhere: Server) -> None:
    """They come to be while their stores are silent, so none has a pod yet."""
    many = [Server(ns, f"silent-{number}").apply(spec(base, files)) for number in range(MANY)]
    for _ in range(3):
        mended(elsewhere)
        for server in many:
            server.look()
    for server in many:
        server.until("DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.NOTICED)
    mended(elsewhere)
    elsewhere.until("Ready", within=timeouts.UNDISTURBED)
    alive(ns)
    ns.kubectl("delete", "mlflowservers", *(server.name for server in many), "--wait=false")
    eventually("they are gone", lambda: len(ns.list("MLflowServer")) == 1, timeouts.GONE)


def mended(server: Server) -> None:
    """What somebody changed by hand is put right as soon as ever."""
    name = server.names.client
    right = server.kube.need("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
    eventually(
        "the operator mends",
        lambda: server.kube.need("ConfigMap", name)["data"] == right,
        timeouts.UNDISTURBED,
    )


def alive(kube: Kube) -> None:
    """The operator's event loop does what it is there for."""
    for pod in operator_release.pods(kube):
        path = f"/api/v1/namespaces/{operator_release.NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy"
        assert kube.kubectl("get", "--raw", f"{path}/healthz", within=timeouts.UNDISTURBED).strip() == "ok"
        assert "mlflow_operator_queue_depth" in kube.kubectl("get", "--raw", f"{path}/metrics")
