"""Stores that are slow, drop data or reset connections: the server reports it and recovers, other servers are not
affected."""

import pytest

from tests.e2e import operator_release, timeouts, toxiproxy
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.toxiproxy import Proxy

GROUP = "shared"

DATABASE, PASSWORD = "slow", "slow's own"
SERVER_COUNT = 12
"""More servers than the operator reconciles in parallel."""


@pytest.mark.alone  # other tests' load delays the operator, too
@pytest.mark.second_images
@pytest.mark.timeout(600)
@pytest.mark.long_running(
    reason="outages; tests/unit/clients/test_timeouts.py and test_workqueue test the same with sockets and a fake clock"
)
def test_unresponsive_stores_are_reported_and_delay_no_other_server(
    ns: Kube, platform: Platform, shared_server: Server
) -> None:
    """One server on stores behind a faulty network, then many such servers, and another server that is not affected."""
    platform.create_migrated_database(DATABASE, PASSWORD)
    store = f"minio.{platform.kube.namespace}.svc:9000"
    database_proxy, store_proxy = toxiproxy.start(ns, f"{platform.postgres.host}:5432", store)
    ns.apply(
        secret("database", username=DATABASE, password=PASSWORD),
        secret("store", accessKeyID=platform.minio.access_key, secretAccessKey=platform.minio.secret_key),
    )
    server = Server(ns).apply(spec(database_proxy, store_proxy)).wait_ready()
    pod, faults = server.pod()["metadata"]["uid"], FaultExpectations(server)

    for proxy in (database_proxy, store_proxy):
        proxy.drop_data()
    server.trigger_reconcile()
    faults.expect(
        "DatabaseReady",
        "DatabaseUnreachable",
        f"{database_proxy.host}:{database_proxy.port}",
        "does not answer in time",
    )
    faults.expect("ArtifactStoreReady", "ArtifactStoreUnreachable", "does not answer in time")
    check_other_servers_are_not_delayed(ns, database_proxy, store_proxy, shared_server)

    for proxy in (database_proxy, store_proxy):
        proxy.reset_connections()
    server.trigger_reconcile()
    faults.expect(
        "DatabaseReady",
        "DatabaseUnreachable",
        f"{database_proxy.host}:{database_proxy.port}",
        "cannot be reached",
    )
    faults.expect("ArtifactStoreReady", "ArtifactStoreUnreachable", "cannot be reached")

    database_proxy.add_latency(6000)
    store_proxy.add_latency(15000)
    server.trigger_reconcile()
    faults.expect("DatabaseReady", "DatabaseUnreachable", "does not answer in time")
    faults.expect("ArtifactStoreReady", "ArtifactStoreUnreachable", "does not answer in time")

    for proxy in (database_proxy, store_proxy):
        proxy.remove_toxics()
    server.trigger_reconcile()
    server.wait_ready(within=timeouts.RESYNC_SECONDS)
    assert server.pod()["metadata"]["uid"] == pod, "a pod was replaced although the fault was in the stores"


def spec(database_proxy: Proxy, store_proxy: Proxy) -> Object:
    """Return a spec with both stores."""
    return small_spec(
        database={
            "external": {
                "host": database_proxy.host,
                "databaseName": DATABASE,
                "credentialsSecretRef": {"name": "database"},
            }
        },
        artifacts={
            "s3": {
                "endpoint": f"http://{store_proxy.host}:{store_proxy.port}",
                "bucket": "behind-a-bad-line",
                "credentialsSecretRef": {"name": "store"},
            }
        },
    )


def check_other_servers_are_not_delayed(
    ns: Kube, database_proxy: Proxy, store_proxy: Proxy, healthy_server: Server
) -> None:
    """Create servers while their stores drop all data, so that none of them gets a pod."""
    servers = [
        Server(ns, f"silent-{number}").apply(spec(database_proxy, store_proxy))
        for number in range(SERVER_COUNT)
    ]
    for _ in range(3):
        check_repair(healthy_server)
        for server in servers:
            server.trigger_reconcile()
    for server in servers:
        server.wait_for("DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.RESYNC_SECONDS)
    check_repair(healthy_server)
    healthy_server.wait_for("Ready", within=timeouts.UNAFFECTED_SECONDS)
    check_operator_is_healthy(ns)
    ns.kubectl("delete", "mlflowservers", *(server.name for server in servers), "--wait=false")
    eventually("they are gone", lambda: len(ns.list("MLflowServer")) == 1, timeouts.DELETION_SECONDS)


def check_repair(server: Server) -> None:
    """Change the ConfigMap for clients, and check that the operator repairs it as fast as usual."""
    name = server.names.client
    expected = server.kube.require("ConfigMap", name)["data"]
    server.kube.patch("ConfigMap", name, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
    eventually(
        "the operator repairs the ConfigMap",
        lambda: server.kube.require("ConfigMap", name)["data"] == expected,
        timeouts.UNAFFECTED_SECONDS,
    )


def check_operator_is_healthy(kube: Kube) -> None:
    """Check that the operator's event loop answers requests for its health and its metrics."""
    for pod in operator_release.pods(kube):
        path = f"/api/v1/namespaces/{operator_release.NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy"
        assert (
            kube.kubectl("get", "--raw", f"{path}/healthz", within=timeouts.UNAFFECTED_SECONDS).strip()
            == "ok"
        )
        assert "mlflow_operator_queue_depth" in kube.kubectl("get", "--raw", f"{path}/metrics")
