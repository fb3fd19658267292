"""50 servers at once on one Postgres and one MinIO: time until each has its own database, prefix and keys, API writes,
API requests, and memory of the operator.

Roles, databases, users and policies are real. All pods are simulated, so the servers do not get beyond the migration.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION

from benchmarks import audit, kwok, scale, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, without_target

SERVER_COUNT, QUICK_SERVER_COUNT = 50, 10
PROVISION_TIMEOUT_SECONDS = 600.0
ADMIN_ROLE, ADMIN_PASSWORD = "team-admin", "an-admin-of-benchmarks"
DATABASE_ADMIN_SECRET, STORE_ADMIN_SECRET = "postgres-admin", "minio-admin"
"""Secrets of the administrators of both stores."""

BUCKET = "shared"

STORE_CONDITIONS = ("DatabaseReady", "ArtifactStoreReady")


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores. The servers' pods are simulated."""
    return stores.REQUESTS


def measure(lab: Lab) -> list[Row]:
    """Return four rows for servers with `database.provision` and `artifacts.s3.adminSecretRef`."""
    shared = lab.stores()
    create_role(shared, ADMIN_ROLE)

    def create_secrets(kube: Kube) -> AbstractContextManager[None]:
        kube.apply(*administrators(ADMIN_ROLE))
        return nullcontext()

    return measure_servers(
        lab,
        "on one Postgres and one MinIO",
        lambda number: spec(shared.host, shared.endpoint, f"tracking-{number}"),
        create_secrets,
    )


def measure_servers(
    lab: Lab,
    place: str,
    spec_of: Callable[[int], Object],
    prepared: Callable[[Kube], AbstractContextManager[None]],
) -> list[Row]:
    """Create servers at once, and return four rows.

    `place`: where the servers are, for the names of the rows. `spec_of` returns the spec of a server, by its number.
    `prepared` creates what the servers need in their namespace, before the measurement.
    """
    count = QUICK_SERVER_COUNT if lab.quick else SERVER_COUNT
    shared = lab.stores()
    before = shared.existing_databases()
    with kwok.simulated_node(lab), audit.count_requests(lab.kube):
        scale.restart_operator(lab)
        with (
            lab.namespace("provisioned", wait_deleted=True) as kube,
            prepared(kube),
            WorkingSet(kube) as memory,
        ):
            request_count, since, start = audit.request_count(kube), audit.current_time(), time.monotonic()
            kube.apply(*(server(f"tracking-{number}", spec_of(number)) for number in range(count)))
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
    name = f"{count} servers {place}"
    return [
        without_target(f"{name}: all provisioned after", [seconds], "s"),
        without_target(f"{name}: API writes per server until then", [write_count / count], ""),
        without_target(f"{name}: API requests per server until then", [request_count / count], ""),
        without_target(f"{name}: peak working set of the leader", [memory.peak_mib], "MiB"),
    ]


def create_role(shared: stores.Stores, name: str) -> None:
    """Create a role with CREATEROLE and CREATEDB."""
    shared.query(f"CREATE ROLE \"{name}\" LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD '{ADMIN_PASSWORD}'")


def administrators(role: str) -> list[Object]:
    """Return Secrets of the administrators of both stores."""
    keys = {"accessKeyID": stores.ACCESS_KEY, "secretAccessKey": stores.SECRET_KEY}
    return [
        secret(DATABASE_ADMIN_SECRET, username=role, password=ADMIN_PASSWORD),
        secret(STORE_ADMIN_SECRET, **keys),
    ]


def server(name: str, spec: Object) -> Object:
    """Return an MLflowServer whose pods are simulated."""
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": name},
        "spec": {**spec, **kwok.placement()},
    }


def spec(host: str, endpoint: str, prefix: str) -> Object:
    """Return stores of the server, with Secrets in its own namespace."""
    return {
        "database": {"provision": {"host": host, "adminSecretRef": {"name": DATABASE_ADMIN_SECRET}}},
        "artifacts": {
            "s3": {
                "endpoint": endpoint,
                "bucket": BUCKET,
                "prefix": prefix,
                "adminSecretRef": {"name": STORE_ADMIN_SECRET},
            }
        },
    }


def _count_provisioned(kube: Kube) -> int:
    """Return the number of servers whose database and artifact store are ready."""
    return sum(
        {c["type"] for c in (server.get("status") or {}).get("conditions") or () if c["status"] == "True"}
        >= set(STORE_CONDITIONS)
        for server in kube.list("MLflowServer")
    )
