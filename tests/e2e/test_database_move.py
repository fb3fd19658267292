"""A server moves to another database, and ends with its namespace or with the CRD."""

import time

import pytest

from tests.e2e import operator_release, timeouts
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import API_VERSION, Server, eventually, small
from tests.e2e.shared_stores import Platform

ENDS = 90.0
"""Seconds within which a deleted namespace and a deleted CRD are gone, with all that belongs to them."""

DEFINITION = "mlflowservers.mlflow-operator.dev"


def definition(kube: Kube) -> bool:
    """Whether the cluster has the CRD."""
    return bool(kube.kubectl("get", "crd", DEFINITION, "--ignore-not-found", "-o", "name"))


def data(kube: Kube) -> set[str]:
    """Volume claims and Secrets that servers created in a namespace."""
    managed = {"app.kubernetes.io/managed-by": "mlflow-operator"}
    return {
        f"{kind}/{obj['metadata']['name']}"
        for kind in ("PersistentVolumeClaim", "Secret")
        for obj in kube.list(kind, managed)
    }


def test_a_deleted_namespace_takes_its_servers_and_their_databases_along(
    ns: Kube, platform: Platform
) -> None:
    """One has embedded stores, the database of the other one is outside of the namespace. Both delete their data."""
    embedded = Server(ns).apply(small(replicas=0, deletionPolicy="Delete"))
    other = Server(ns, "other").apply(
        small(
            replicas=0,
            deletionPolicy="Delete",
            database=platform.provision(),
            artifacts=platform.bucket("ends"),
        )
    )
    for server in (embedded, other):
        server.until("DatabaseReady")
    assert platform.databases(ns)
    assert platform.roles(ns)
    ns.kubectl("delete", "namespace", ns.namespace, "--wait=false")
    named = ("get", "namespace", ns.namespace, "--ignore-not-found", "-o", "name")
    eventually("the namespace is gone", lambda: not ns.kubectl(*named), ENDS)
    assert platform.databases(ns) == set()
    assert platform.roles(ns) == set()


@pytest.mark.long_running(
    reason="a server that moves twice; tests/unit/components/server/test_storage_moved.py tests the steps of a move"
)
def test_a_server_moves_only_to_a_database_that_it_can_use(ns: Kube, platform: Platform) -> None:
    """Until then it serves from its present one; and then an Event names what stays behind."""
    stores = platform.stores(ns)
    external = stores["database"]["external"]
    one, two = external["databaseName"], f"{external['databaseName']}_two"
    platform.make_migrated_database(two, "two's own")
    unfit = f"{one}_unfit"
    platform.postgres.query(
        f'CREATE DATABASE "{unfit}" OWNER "{one}" TEMPLATE template0 ENCODING SQL_ASCII LOCALE "C"',
        "postgres",
    )
    ns.apply(secret("two-database", username=two, password="two's own"))
    server = Server(ns).apply(small(**stores)).ready()
    scientist = Scientist(server.url)
    work, pod = scientist.work(), server.pod()

    server.change(storageChangePolicy="Allow", database={"external": {"databaseName": unfit}})
    server.until("DatabaseReady", "False", "DatabaseEncodingUnsupported")
    scientist.finds(work)
    moved = {"databaseName": two, "credentialsSecretRef": {"name": "two-database"}}
    server.change(database={"external": moved})
    server.replaced("server", pod)
    server.ready()
    # the old pod serves connections that are open until its grace period ends
    eventually(
        "only the new pod answers", lambda: work.experiment not in scientist.experiments(), timeouts.ROLLED
    )

    def events() -> list[str]:
        return [event["message"] for event in ns.list("Event") if event["reason"] == "StorageChanged"]

    (message,) = eventually("an Event tells of the change", events, timeouts.NOTICED)
    host = platform.postgres.host
    assert f"{host}:5432/{two}" in message
    assert message.endswith(f"neither moved nor deleted: the database {host}:5432/{one}.")
    server.change(database={"external": external})
    server.until("Ready")
    eventually("what was logged is back", lambda: work.experiment in scientist.experiments(), timeouts.ROLLED)


@pytest.mark.last
@pytest.mark.restarts_operator
@pytest.mark.long_running(
    reason="every server of the cluster ends; tests/integration/test_outages.py deletes the CRD of simulated pods"
)
def test_servers_end_by_their_deletion_policy_when_the_crd_is_deleted(kube: Kube, ns: Kube) -> None:
    """With their data or without; and the operator continues with the next CRD."""
    stays = Server(ns, "stays").apply(small(replicas=0))
    goes = Server(ns, "goes").apply(small(replicas=0, deletionPolicy="Delete"))
    for server in (stays, goes):
        server.until("SchemaReady")
    since = time.monotonic()
    try:
        kube.kubectl("delete", "crd", DEFINITION, "--wait=false")
        eventually("the CRD is gone", lambda: not definition(kube), ENDS)
        eventually("the pods are gone", lambda: not ns.list("Pod"), ENDS - (time.monotonic() - since))
        names = stays.names
        kept = {
            f"Secret/{names.database_secret}",
            f"Secret/{names.artifacts_secret}",
            f"PersistentVolumeClaim/{names.postgres_data}",
            f"PersistentVolumeClaim/{names.artifact_store_data}",
        }
        eventually(f"what is left is {kept}", lambda: data(ns) == kept, timeouts.GONE)
    finally:
        operator_release.install(kube)
    eventually("the CRD is back", lambda: definition(kube), timeouts.SETTLED)
    stays.apply(small(replicas=0))
    stays.until("SchemaReady")
    assert stays.live()["apiVersion"] == API_VERSION
