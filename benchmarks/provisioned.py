"""Fifty servers at once on one Postgres and one MinIO: time until each has its own database, prefix and keys, API
writes, API requests, and memory of the operator.

Roles, databases, users and policies are real. All pods are simulated, so each server stops before its migration.
"""

import time

from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION

from benchmarks import audit, kwok, namespaces, scale, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, reported

COUNT, FEWER = 50, 10
ALL_PROVISIONED = 600.0
ADMIN, PASSWORD = "platform-admin", "an-admin-of-benchmarks"
DATABASE_ADMIN, STORE_ADMIN = "postgres-admin", "minio-admin"
"""Secrets of the administrators of both stores."""

ALLOW = "mlflow-operator.dev/allow-namespaces"
"""Annotation of a Secret that names the namespaces whose servers may use it."""

STORES = ("DatabaseReady", "ArtifactStoreReady")


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores; the pods of the servers are simulated."""
    return stores.REQUESTS


def take(lab: Lab) -> list[Row]:
    """Four rows."""
    count = FEWER if lab.quick else COUNT
    shared = lab.stores()
    _create_administrators(shared)
    before = shared.existing_databases()
    with kwok.pretending(lab), audit.counted(lab.kube):
        scale.restart_operator(lab)
        with lab.namespace("provisioned", wait_deleted=True) as kube, WorkingSet(kube) as memory:
            asked, since, began = audit.requests(kube), audit.now(), time.monotonic()
            kube.apply(*(_server(shared, number) for number in range(count)))
            seconds = (
                lab.until(
                    f"{count} servers are provisioned",
                    lambda: _provisioned(kube) == count,
                    ALL_PROVISIONED,
                    0.2,
                    state=lambda: f"{_provisioned(kube)} are provisioned",
                )
                - began
            )
            written = len(audit.writes(audit.read(kube), since, audit.now()))
            asked = audit.requests(kube) - asked
            scale.sample_longer(lab)
            created = shared.existing_databases() - before
    shared.drop(*created)
    if len(created) != count:
        raise AssertionError(f"{count} servers have {len(created)} databases; each must have its own")
    name = f"{count} servers on one Postgres and one MinIO"
    return [
        reported(f"{name}: all provisioned after", [seconds], "s"),
        reported(f"{name}: API writes until then, a server", [written / count], ""),
        reported(f"{name}: API requests until then, a server", [asked / count], ""),
        reported(f"{name}: working set of the leader at most", [memory.peak], "MiB"),
    ]


def _create_administrators(shared: stores.Stores) -> None:
    """A role that may create roles and databases, and the root key of MinIO, for servers of all benchmarks."""
    shared.query(f"CREATE ROLE \"{ADMIN}\" LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD '{PASSWORD}'")
    keys = {"accessKeyID": stores.ACCESS_KEY, "secretAccessKey": stores.SECRET_KEY}
    for own in (secret(DATABASE_ADMIN, username=ADMIN, password=PASSWORD), secret(STORE_ADMIN, **keys)):
        own["metadata"]["annotations"] = {ALLOW: f"{namespaces.PREFIX}*"}
        shared.kube.apply(own)


def _server(shared: stores.Stores, number: int) -> Object:
    there = {"namespace": shared.kube.namespace}
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": f"tracking-{number}"},
        "spec": {
            "database": {
                "provision": {"host": shared.host, "adminSecretRef": {"name": DATABASE_ADMIN, **there}}
            },
            "artifacts": {
                "s3": {
                    "endpoint": shared.endpoint,
                    "bucket": "shared",
                    "prefix": f"tracking-{number}",
                    "adminSecretRef": {"name": STORE_ADMIN, **there},
                }
            },
            **kwok.placement(),
        },
    }


def _provisioned(kube: Kube) -> int:
    """How many servers have a database and an artifact store."""
    return sum(
        {c["type"] for c in (server.get("status") or {}).get("conditions") or () if c["status"] == "True"}
        >= set(STORES)
        for server in kube.list("MLflowServer")
    )
