"""A database of CloudNativePG. The test simulates CloudNativePG's operator in front of a real Postgres: it writes the
same CRD, status and Secrets."""

from collections.abc import Callable, Iterator

import pytest

from tests import cloudnativepg
from tests.e2e import timeouts
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.test_examples import EXAMPLES, LONG_RUNNING, check_idempotence, install_crd

GROUP = "cloudnativepg"

(EXAMPLE,) = (path for path in EXAMPLES if path.stem == "cloudnativepg")
CLUSTER, DATABASE, PASSWORD = "pg", "cnpg-app", "aB3-generated"


@pytest.fixture
def crd(kube: Kube) -> Iterator[Object]:
    """CRD of Cluster, not applied yet. It is deleted after the test."""
    name = cloudnativepg.CRD["metadata"]["name"]
    kube.kubectl("delete", "customresourcedefinition", name, "--ignore-not-found")
    yield cloudnativepg.CRD
    kube.kubectl("delete", "customresourcedefinition", name, "--ignore-not-found")


def test_server_waits_for_cloudnativepg_cluster(ns: Kube, platform: Platform, crd: Object) -> None:
    """From before CloudNativePG is installed. Every missing part is reported, and the resource is never changed."""
    s3 = {"endpoint": platform.minio.endpoint, "bucket": "cnpg", "credentialsSecretRef": {"name": "keys"}}
    ns.apply(secret("keys", accessKeyID=platform.minio.access_key, secretAccessKey=platform.minio.secret_key))
    server = Server(ns).apply(
        small_spec(
            database={"cloudNativePG": {"clusterName": CLUSTER, "databaseName": DATABASE}},
            artifacts={"s3": s3},
        )
    )
    faults = FaultExpectations(server)
    faults.expect(
        "CredentialsReady", "DatabaseUnreachable", f'no Cluster "{CLUSTER}"', "Install CloudNativePG"
    )

    install_crd(ns, crd)
    ns.apply(cloudnativepg.cluster(CLUSTER))
    ns.kubectl(*cloudnativepg.status_patch_arguments(CLUSTER, healthy=False))
    server.trigger_reconcile()
    # The operator may have read the Cluster before its status was written; the message is then shorter.
    message = f'Waiting for a ready instance of Cluster "{CLUSTER}" (phase: "Setting up primary").'

    def reported() -> bool:
        found = server.conditions().get("CredentialsReady") or {}
        return (found.get("reason"), found.get("message")) == ("WaitingForDependency", message)

    eventually(f"CredentialsReady says: {message}", reported, timeouts.RESYNC_SECONDS)

    platform.create_migrated_database(DATABASE, PASSWORD)
    ns.apply(
        cloudnativepg.app_secret(CLUSTER, ns.namespace, DATABASE, DATABASE, PASSWORD),
        platform.ca_secret(f"{CLUSTER}-ca"),
        cloudnativepg.service(CLUSTER, platform.postgres.host),
    )
    ns.kubectl(*cloudnativepg.status_patch_arguments(CLUSTER, healthy=True))
    server.trigger_reconcile()
    server.wait_ready()
    assert server.status["database"] == {
        "type": "CloudNativePG",
        "host": f"{CLUSTER}-rw",
        "port": 5432,
        "name": DATABASE,
    }
    verified = (
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE datname = current_database() AND client_addr IS NOT NULL"
    )
    assert platform.postgres.query(verified, DATABASE) == "t\n"
    Workload(server.url).log_data()


@LONG_RUNNING
def test_the_example_is_idempotent(
    ns: Kube, other_ns: Kube, create_ns: Callable[[], Kube], platform: Platform, crd: Object
) -> None:
    """Like test_examples, but in this module, because no other test may create or delete the CRD meanwhile."""
    check_idempotence(EXAMPLE, ns, other_ns, create_ns, platform)
