"""A server switches to another database, and is deleted with its namespace or with the CRD."""

import pytest

from tests.e2e import operator_release, timeouts
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import API_VERSION, Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

DELETION_TIMEOUT_SECONDS = 180.0
"""Limit for the deletion of a namespace or of the CRD, with all their objects."""

CRD_NAME = "mlflowservers.mlflow-operator.dev"


def crd_exists(kube: Kube) -> bool:
    """Whether the CRD exists."""
    return bool(kube.kubectl("get", "crd", CRD_NAME, "--ignore-not-found", "-o", "name"))


def retained_objects(kube: Kube) -> set[str]:
    """Return the volume claims and Secrets in a namespace that the operator created."""
    managed = {"app.kubernetes.io/managed-by": "mlflow-operator"}
    return {
        f"{kind}/{obj['metadata']['name']}"
        for kind in ("PersistentVolumeClaim", "Secret")
        for obj in kube.list(kind, managed)
    }


def test_namespace_deletion_deletes_servers_and_provisioned_databases(ns: Kube, platform: Platform) -> None:
    """With deletionPolicy Delete: one server has embedded stores, the other those of a platform.

    The administrator's Secret must not be deleted with the namespace.
    """
    embedded = Server(ns).apply(small_spec(replicas=0, deletionPolicy="Delete"))
    with platform.resource(ns.namespace, "ends", ns) as use_platform:
        other = Server(ns, "other").apply(small_spec(replicas=0, deletionPolicy="Delete", **use_platform))
        for server in (embedded, other):
            server.wait_for("DatabaseReady")
        assert platform.databases(ns)
        assert platform.roles(ns)
        ns.kubectl("delete", "namespace", ns.namespace, "--wait=false")
        get_namespace = ("get", "namespace", ns.namespace, "--ignore-not-found", "-o", "name")
        eventually("the namespace is gone", lambda: not ns.kubectl(*get_namespace), DELETION_TIMEOUT_SECONDS)
    assert platform.databases(ns) == set()
    assert platform.roles(ns) == set()


@pytest.mark.long_running(
    reason="switches databases twice; tests/unit/components/server/test_storage_moved.py tests the steps"
)
def test_server_switches_only_to_a_usable_database(ns: Kube, platform: Platform) -> None:
    """Until then it uses its current database. After the switch an Event names the data that is left behind."""
    stores = platform.stores_spec(ns)
    external = stores["database"]["external"]
    first_database, second_database = external["databaseName"], f"{external['databaseName']}_two"
    platform.create_migrated_database(second_database, "two's own")
    unsupported = f"{first_database}_unsupported"
    platform.postgres.query(
        f'CREATE DATABASE "{unsupported}" OWNER "{first_database}" TEMPLATE template0 ENCODING SQL_ASCII LOCALE "C"',
        "postgres",
    )
    ns.apply(secret("two-database", username=second_database, password="two's own"))
    server = Server(ns).apply(small_spec(**stores)).wait_ready()
    workload = Workload(server.url)
    data, pod = workload.log_data(), server.pod()

    server.patch_spec(storageChangePolicy="Allow", database={"external": {"databaseName": unsupported}})
    server.wait_for("DatabaseReady", "False", "DatabaseEncodingUnsupported")
    workload.check_data(data)
    new_database = {"databaseName": second_database, "credentialsSecretRef": {"name": "two-database"}}
    server.patch_spec(database={"external": new_database})
    server.wait_replaced("server", pod)
    server.wait_ready()
    # the old pod serves its open connections until its grace period ends
    eventually(
        "only the new pod answers",
        lambda: data.experiment not in workload.experiment_names(),
        timeouts.ROLLOUT_SECONDS,
    )

    # The operator publishes the Event again if the status cannot be written.
    def messages() -> set[str]:
        return {event["message"] for event in ns.list("Event") if event["reason"] == "StorageChanged"}

    (message,) = eventually("an Event reports the change", messages, timeouts.RESYNC_SECONDS)
    host = platform.postgres.host
    assert f"{host}:5432/{second_database}" in message
    assert message.endswith(f"neither moved nor deleted: the database {host}:5432/{first_database}.")
    server.patch_spec(database={"external": external})
    server.wait_for("Ready")
    eventually(
        "the logged data is available again",
        lambda: data.experiment in workload.experiment_names(),
        timeouts.ROLLOUT_SECONDS,
    )


@pytest.mark.last
@pytest.mark.restarts_operator
@pytest.mark.long_running(
    reason="deletes every server of the cluster; tests/integration/test_outages.py deletes the CRD with simulated pods"
)
def test_crd_deletion_honors_deletion_policy(kube: Kube, ns: Kube) -> None:
    """The data is retained or deleted, and the operator continues when the CRD is created again."""
    retained = Server(ns, "retained").apply(small_spec(replicas=0))
    deleted = Server(ns, "deleted").apply(small_spec(replicas=0, deletionPolicy="Delete"))
    for server in (retained, deleted):
        server.wait_for("SchemaReady")
    try:
        kube.kubectl("delete", "crd", CRD_NAME, "--wait=false")
        eventually("the CRD is gone", lambda: not crd_exists(kube), DELETION_TIMEOUT_SECONDS)
        eventually("the pods are gone", lambda: not ns.list("Pod"), DELETION_TIMEOUT_SECONDS)
        names = retained.names
        expected = {
            f"Secret/{names.database_secret}",
            f"Secret/{names.artifacts_secret}",
            f"Secret/{names.encryption_secret}",
            f"PersistentVolumeClaim/{names.postgres_data}",
            f"PersistentVolumeClaim/{names.artifact_store_data}",
        }
        eventually(
            f"these objects are left: {expected}",
            lambda: retained_objects(ns) == expected,
            timeouts.DELETION_SECONDS,
        )
    finally:
        operator_release.install(kube)
    eventually("the CRD is back", lambda: crd_exists(kube), timeouts.STATUS_SECONDS)
    retained.apply(small_spec(replicas=0))
    retained.wait_for("SchemaReady")
    assert retained.resource()["apiVersion"] == API_VERSION
