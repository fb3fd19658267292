"""Databases of CloudNativePG itself: its operator, and a Postgres that it runs. test_cloudnativepg.py simulates it."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from mlflow_operator.model.secrets import text_values
from tests import cloudnativepg
from tests.e2e import cloudnativepg_operator, timeouts
from tests.e2e.cloudnativepg_operator import ADMIN, Cluster
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_platform import STORE_ADMIN, MLflowPlatform
from tests.e2e.mlflow_workload import Workload
from tests.e2e.port_forward import PortForward
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

GROUP = "cloudnativepg"
"""No other test may create or delete the CRD of Clusters meanwhile."""

pytestmark = [
    pytest.mark.second_images,
    pytest.mark.long_running(
        reason="compiles and installs CloudNativePG; test_cloudnativepg.py simulates it, "
        "and tests/unit/test_platform_features.py tests its superuser as the administrator"
    ),
]


@pytest.fixture(scope="module")
def _cluster(module_ns: Kube) -> Iterator[Cluster]:
    with cloudnativepg_operator.installed(module_ns):
        created = Cluster(module_ns)
        created.apply()
        yield created


@pytest.fixture
def cluster(_cluster: Cluster, module_evidence: None) -> Cluster:
    """A Cluster, which may not be healthy yet."""
    return _cluster


def server_on(cluster: Cluster, stores: Platform) -> Server:
    """Create a server in the namespace of the Cluster, with the database `app`."""
    kube = cluster.kube
    return Server(kube).apply(
        small_spec(
            database={"cloudNativePG": {"clusterName": cluster.name}},
            artifacts=stores.bucket_spec(kube, f"{kube.namespace}-cnpg"),
        )
    )


def test_server_starts_as_soon_as_its_cluster_is_healthy(cluster: Cluster, platform: Platform) -> None:
    """Its resource is created directly after the Cluster. The connection to Postgres has a verified certificate."""
    server = server_on(cluster, platform)
    cluster.wait_healthy()
    server.wait_ready()
    assert server.status["database"] == {
        "type": "CloudNativePG",
        "host": f"{cluster.name}-rw",
        "port": 5432,
        "name": "app",
    }
    workload = Workload(server.url)
    workload.check_data(workload.log_data())
    encrypted = (
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE datname = 'app' AND usename = 'app' AND client_addr IS NOT NULL"
    )
    assert cluster.postgres.query(encrypted) == "t\n"
    server.delete()


def test_simulated_objects_have_the_form_of_the_real_ones(cluster: Cluster) -> None:
    """All tests without CloudNativePG rely on tests/cloudnativepg.py."""
    cluster.wait_healthy()
    name, kube = cluster.name, cluster.kube
    app = text_values(kube.require("Secret", f"{name}-app"))
    simulated = cloudnativepg.app_secret(name, kube.namespace, "app", "app", app["password"])
    superuser = text_values(kube.require("Secret", f"{name}-superuser"))
    for secret in (simulated, cloudnativepg.superuser_secret(name, kube.namespace, superuser["password"])):
        assert missing(_encoded(secret), kube.require("Secret", secret["metadata"]["name"])) == []
    assert kube.require("Secret", f"{name}-ca")["data"].keys() >= {"ca.crt"}
    status = cloudnativepg.cluster_status(name, healthy=True)
    for condition in status["conditions"]:
        del condition["lastTransitionTime"]
    assert missing(status, cluster.resource()["status"]) == []


def _encoded(secret: Object) -> Object:
    """Return a Secret as the API server stores it."""
    values = secret["stringData"]
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {**{key: value for key, value in secret.items() if key != "stringData"}, "data": data}


def missing(expected: Any, found: Any, path: str = "") -> list[str]:
    """Return the paths in `expected` whose value differs in `found`, without the values. `found` may contain more."""
    if isinstance(expected, dict):
        inner = found if isinstance(found, dict) else {}
        return [p for key, value in expected.items() for p in missing(value, inner.get(key), f"{path}.{key}")]
    if isinstance(expected, list):
        matched = [any(not missing(value, item) for item in found or ()) for value in expected]
        return [f"{path}[{i}]" for i, is_matched in enumerate(matched) if not is_matched]
    return [] if expected == found else [path]


@contextmanager
def offered(cluster: Cluster, stores: Platform, admin: str, tenant: Kube) -> Iterator[MLflowPlatform]:
    """Offer the Cluster to a namespace as its default platform, with the administrator in the Secret `admin`."""
    cluster.wait_healthy()
    cluster.kube.apply(stores.store_admin_secret(STORE_ADMIN))
    platform = MLflowPlatform(
        cluster.kube, f"{tenant.namespace}-platform", cluster.postgres, stores.minio, stores.authority
    )
    platform.select(tenant)
    postgres = {
        "host": cluster.host,
        "adminSecretRef": {"name": admin},
        "tls": {"mode": "VerifyFull", "caSecretRef": {"name": f"{cluster.name}-ca", "key": "ca.crt"}},
    }
    s3 = {
        "endpoint": stores.minio.endpoint,
        "bucket": platform.name,
        "adminSecretRef": {"name": STORE_ADMIN},
    }
    platform.apply(database={"postgres": postgres}, artifacts={"s3": s3})
    try:
        yield platform
    finally:
        platform.delete(wait=False)


def test_superuser_of_a_cluster_is_the_administrator_of_a_platform(
    ns: Kube, cluster: Cluster, platform: Platform
) -> None:
    """Servers get databases and roles of their own, and deletion removes them.

    The superuser's password changes in its Secret, from which CloudNativePG and the operator read it.
    """
    with offered(cluster, platform, cluster.superuser, ns) as offer:
        offer.wait_for("Ready")
        before = offer.databases(), offer.roles()
        server = Server(ns).apply({}).wait_ready()
        database = server.status["database"]["name"]
        assert server.status["database"]["host"] == cluster.host
        with PortForward(ns, server.names.service, 5000) as forward:
            workload = Workload(forward.url)
            data = workload.log_data()
            assert data.run_id in cluster.postgres.query("SELECT run_uuid FROM runs", database)

            hash_query = "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'"
            previous = cluster.postgres.query(hash_query)
            cluster.kube.patch(
                "Secret", cluster.superuser, {"stringData": {"password": "chosen by a person"}}
            )
            eventually(
                "CloudNativePG applies the password",
                lambda: cluster.postgres.query(hash_query) != previous,
                timeouts.STATUS_SECONDS,
            )
            # The operator can only create this database with the new password.
            second = Server(ns, "second").apply({"replicas": 0})
            second.wait_for("DatabaseReady", within=timeouts.RESYNC_SECONDS)
            offer.wait_for("Ready")
            workload.check_data(data)

        assert len(offer.databases()) == len(before[0]) + 2
        for each in (second, server):
            each.patch_spec(deletionPolicy="Delete")
            each.delete()
        assert (offer.databases(), offer.roles()) == before


def test_server_uses_the_new_primary_after_a_failover(cluster: Cluster, platform: Platform) -> None:
    """Its pod keeps running, and its data are there. The test of the managed role then uses the same primary."""
    cluster.wait_healthy()
    server = server_on(cluster, platform).wait_ready()
    workload = Workload(server.url)
    data = workload.log_data("before")
    pod = server.pod()["metadata"]["uid"]
    cluster.fail_over()

    def serves_data() -> bool:
        try:
            workload.check_data(data)
        except (MlflowException, requests.RequestException):
            return False
        return True

    eventually("MLflow reads its data from the new primary", serves_data, timeouts.STATUS_SECONDS)
    workload.check_data(workload.log_data("after"))
    server.trigger_reconcile()
    server.wait_ready()
    assert server.pod()["metadata"]["uid"] == pod
    server.delete()


def test_managed_role_of_a_cluster_is_the_administrator_of_a_platform(
    ns: Kube, cluster: Cluster, platform: Platform
) -> None:
    """It may create roles and databases, and is not a superuser."""
    with offered(cluster, platform, ADMIN, ns) as offer:
        offer.wait_for("Ready")
        before = offer.databases(), offer.roles()
        server = Server(ns).apply({"replicas": 0, "deletionPolicy": "Delete"})
        server.wait_for("SchemaReady")
        assert offer.databases() > before[0]
        server.delete()
        assert (offer.databases(), offer.roles()) == before
