"""A database of CloudNativePG. Its operator is played by the test, in front of a real Postgres: the definition, the
status and the Secrets are as it writes them."""

from collections.abc import Callable, Iterator

import pytest

from tests import cloudnativepg
from tests.e2e import timeouts
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform
from tests.e2e.test_examples import EXAMPLES, LONG_RUNNING, check

GROUP = "cloudnativepg"

(EXAMPLE,) = (path for path in EXAMPLES if path.stem == "cloudnativepg")
CLUSTER, DATABASE, PASSWORD = "pg", "cnpg-app", "aB3-generated"


@pytest.fixture
def definition(kube: Kube) -> Iterator[Object]:
    """That of Cluster, not applied yet, and taken away again."""
    name = cloudnativepg.DEFINITION["metadata"]["name"]
    kube.kubectl("delete", "customresourcedefinition", name, "--ignore-not-found")
    yield cloudnativepg.DEFINITION
    kube.kubectl("delete", "customresourcedefinition", name, "--ignore-not-found")


def test_a_server_waits_for_its_cloudnativepg_cluster_and_uses_its_database(
    ns: Kube, platform: Platform, definition: Object
) -> None:
    """From before CloudNativePG is installed; each thing that is missing is told, and nobody touches the resource."""
    s3 = {"endpoint": platform.minio.endpoint, "bucket": "cnpg", "credentialsSecretRef": {"name": "keys"}}
    ns.apply(secret("keys", accessKeyID=platform.minio.access_key, secretAccessKey=platform.minio.secret_key))
    server = Server(ns).apply(
        small(
            database={"cloudNativePG": {"clusterName": CLUSTER, "databaseName": DATABASE}},
            artifacts={"s3": s3},
        )
    )
    faults = Faults(server)
    faults.told("CredentialsReady", "DatabaseUnreachable", f'no Cluster "{CLUSTER}"', "Install CloudNativePG")

    ns.apply(definition)
    ns.kubectl("wait", "--for=condition=Established", "crd", definition["metadata"]["name"], "--timeout=60s")
    ns.apply(cloudnativepg.cluster(CLUSTER))
    ns.kubectl(*cloudnativepg.report(CLUSTER, healthy=False))
    server.look()
    # The operator may have seen the Cluster without its status before, and then says less.
    message = f'Waits for an instance of Cluster "{CLUSTER}" (it says: "Setting up primary").'

    def reported() -> bool:
        found = server.conditions().get("CredentialsReady") or {}
        return (found.get("reason"), found.get("message")) == ("WaitingForDependency", message)

    eventually(f"CredentialsReady says: {message}", reported, timeouts.NOTICED)

    platform.make_migrated_database(DATABASE, PASSWORD)
    ns.apply(
        cloudnativepg.app_secret(CLUSTER, ns.namespace, DATABASE, DATABASE, PASSWORD),
        platform.certificate(f"{CLUSTER}-ca"),
        cloudnativepg.service(CLUSTER, platform.postgres.host),
    )
    ns.kubectl(*cloudnativepg.report(CLUSTER, healthy=True))
    server.look()
    server.ready()
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
    Scientist(server.url).work()


@LONG_RUNNING
def test_the_example_is_idempotent(
    ns: Kube, other_ns: Kube, more_ns: Callable[[], Kube], platform: Platform, definition: Object
) -> None:
    """As every other one of test_examples; here, because no other test may have the CRD meanwhile."""
    check(EXAMPLE, ns, other_ns, more_ns, platform)
