"""50 servers at once on one Postgres and one MinIO: time until each has its own database, prefix and keys, API writes,
API requests, and memory of the operator.

Roles, databases, users and policies are real. All pods are simulated, so the servers do not get beyond the migration.
"""

import time

from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION

from benchmarks import audit, kwok, namespaces, scale, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, without_target

SERVER_COUNT, QUICK_SERVER_COUNT = 50, 10
PROVISION_TIMEOUT_SECONDS = 600.0
ADMIN_ROLE, ADMIN_PASSWORD = "platform-admin", "an-admin-of-benchmarks"
DATABASE_ADMIN_SECRET, STORE_ADMIN_SECRET = "postgres-admin", "minio-admin"
"""Secrets of the administrators of both stores."""

ALLOW_NAMESPACES_ANNOTATION = "mlflow-operator.dev/allow-namespaces"
"""Annotation of a Secret with the namespaces whose servers may use it."""

STORE_CONDITIONS = ("DatabaseReady", "ArtifactStoreReady")


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores. The servers' pods are simulated."""
    return stores.REQUESTS


def measure(lab: Lab) -> list[Row]:
    """Return four rows."""
    count = QUICK_SERVER_COUNT if lab.quick else SERVER_COUNT
    shared = lab.stores()
    _create_administrators(shared)
    before = shared.existing_databases()
    with kwok.simulated_node(lab), audit.count_requests(lab.kube):
        scale.restart_operator(lab)
        with lab.namespace("provisioned", wait_deleted=True) as kube, WorkingSet(kube) as memory:
            request_count, since, start = audit.request_count(kube), audit.current_time(), time.monotonic()
            kube.apply(*(_server(shared, number) for number in range(count)))
            seconds = (
                lab.wait_for(
                    f"{count} servers are provisioned",
                    lambda: _count_provisioned(kube) == count,
                    PROVISION_TIMEOUT_SECONDS,
                    0.2,
                    state=lambda: f"{_count_provisioned(kube)} are provisioned",
                )
                - start
            )
            write_count = len(audit.operator_writes(audit.read_log(kube), since, audit.current_time()))
            request_count = audit.request_count(kube) - request_count
            scale.continue_sampling(lab)
            created = shared.existing_databases() - before
    shared.drop(*created)
    if len(created) != count:
        raise AssertionError(f"{count} servers have {len(created)} databases; each must have its own")
    name = f"{count} servers on one Postgres and one MinIO"
    return [
        without_target(f"{name}: all provisioned after", [seconds], "s"),
        without_target(f"{name}: API writes per server until then", [write_count / count], ""),
        without_target(f"{name}: API requests per server until then", [request_count / count], ""),
        without_target(f"{name}: peak working set of the leader", [memory.peak_mib], "MiB"),
    ]


def _create_administrators(shared: stores.Stores) -> None:
    """Create a role with CREATEROLE and CREATEDB, and Secrets of both administrators for servers of all benchmarks."""
    shared.query(
        f"CREATE ROLE \"{ADMIN_ROLE}\" LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD '{ADMIN_PASSWORD}'"
    )
    keys = {"accessKeyID": stores.ACCESS_KEY, "secretAccessKey": stores.SECRET_KEY}
    for admin_secret in (
        secret(DATABASE_ADMIN_SECRET, username=ADMIN_ROLE, password=ADMIN_PASSWORD),
        secret(STORE_ADMIN_SECRET, **keys),
    ):
        admin_secret["metadata"]["annotations"] = {ALLOW_NAMESPACES_ANNOTATION: f"{namespaces.PREFIX}*"}
        shared.kube.apply(admin_secret)


def _server(shared: stores.Stores, number: int) -> Object:
    admin_namespace = {"namespace": shared.kube.namespace}
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": f"tracking-{number}"},
        "spec": {
            "database": {
                "provision": {
                    "host": shared.host,
                    "adminSecretRef": {"name": DATABASE_ADMIN_SECRET, **admin_namespace},
                }
            },
            "artifacts": {
                "s3": {
                    "endpoint": shared.endpoint,
                    "bucket": "shared",
                    "prefix": f"tracking-{number}",
                    "adminSecretRef": {"name": STORE_ADMIN_SECRET, **admin_namespace},
                }
            },
            **kwok.placement(),
        },
    }


def _count_provisioned(kube: Kube) -> int:
    """Return the number of servers whose database and artifact store are ready."""
    return sum(
        {c["type"] for c in (server.get("status") or {}).get("conditions") or () if c["status"] == "True"}
        >= set(STORE_CONDITIONS)
        for server in kube.list("MLflowServer")
    )
