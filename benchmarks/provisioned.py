"""Fifty servers at once on one Postgres and one MinIO: how long until each has a database, a bucket's prefix and keys
of its own, what that writes to the API server, and what the operator holds.

Roles, databases, users and policies are real. The pods, those of the migrations too, only pretend to run, so it ends
where a migration would begin.
"""

import time

from tests.e2e import platform as platforms
from tests.e2e.kube import Kube, Object
from tests.e2e.platform import DATABASE_ADMIN, STORE_ADMIN, permitting
from tests.e2e.server import API_VERSION
from tests.e2e.stores import secret

from benchmarks import audit, kwok, scale, stores
from benchmarks.lab import Lab, until
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, told

COUNT, FEWER = 50, 10
ALL_PROVISIONED = 600.0
ADMIN, PASSWORD = "platform-admin", "an-admin-of-benchmarks"
STORES = ("DatabaseReady", "ArtifactStoreReady")


def take(lab: Lab) -> list[Row]:
    """Four rows."""
    count = FEWER if lab.quick else COUNT
    with lab.namespace("stores") as base:
        shared = stores.start(base)
        _administrators(shared)
        with kwok.pretending(base), audit.counted(base):
            scale.fresh_operator(lab.kube)
            with lab.namespace("provisioned") as kube, WorkingSet(kube) as memory:
                asked, since, began = audit.requests(kube), audit.now(), time.monotonic()
                kube.apply(*(_server(shared, number) for number in range(count)))
                what = f"{count} servers are provisioned"
                seconds = until(what, lambda: _provisioned(kube) == count, ALL_PROVISIONED, 0.2) - began
                written = len(audit.writes(audit.read(kube), since, audit.now()))
                asked = audit.requests(kube) - asked
                time.sleep(scale.AFTER_SECONDS)
                made = _made(shared)
    if made != count:
        raise AssertionError(f"{count} servers share {made} databases")
    name = f"{count} servers on one Postgres and one MinIO"
    return [
        told(f"{name}: all provisioned after", [seconds], "s"),
        told(f"{name}: API writes until then, a server", [written / count], ""),
        told(f"{name}: API requests until then, a server", [asked / count], ""),
        told(f"{name}: working set of the leader at most", [memory.peak], "MiB"),
    ]


def _administrators(shared: stores.Stores) -> None:
    """Who makes roles and databases, and users and policies; servers of all benchmarks may use them."""
    shared.query(platforms.admin_statement(ADMIN, PASSWORD))
    keys = {"accessKeyID": shared.minio.access_key, "secretAccessKey": shared.minio.secret_key}
    for own in (secret(DATABASE_ADMIN, username=ADMIN, password=PASSWORD), secret(STORE_ADMIN, **keys)):
        shared.kube.apply(permitting(own, "bench-*"))


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
                    "endpoint": shared.minio.endpoint,
                    "bucket": "shared",
                    "prefix": f"tracking-{number}",
                    "adminSecretRef": {"name": STORE_ADMIN, **there},
                }
            },
            **kwok.placement(),
        },
    }


def _provisioned(kube: Kube) -> int:
    """How many servers' stores are there."""
    return sum(
        {c["type"] for c in (server.get("status") or {}).get("conditions") or () if c["status"] == "True"}
        >= set(STORES)
        for server in kube.list("MLflowServer")
    )


def _made(shared: stores.Stores) -> int:
    """How many databases there are beside Postgres' own."""
    own = "datistemplate OR datname IN ('postgres', 'mlflow')"
    return int(str(shared.query(f"SELECT count(*) FROM pg_database WHERE NOT ({own})")))
