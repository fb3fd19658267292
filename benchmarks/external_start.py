"""Time from `kubectl apply` until Ready with external stores, beside a migration and a plain Deployment."""

import time

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import API_VERSION

from benchmarks import plain, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, at_most
from benchmarks.stores import TEMPLATE, Stores
from benchmarks.waits import is_ready
from mlflow_operator.model import resources as sizing

EMPTY_LIMIT, MIGRATED_LIMIT = 1.25, 1.2


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, one server, and its migration Job."""
    server = sizing.server(workers=2, job_execution=False, once=True)
    return stores.REQUESTS + Resources.of(server["requests"]) + Resources.of(sizing.migration()["requests"])


def take(lab: Lab) -> list[Row]:
    """Two rows: an empty database, and one with the current schema."""
    shared = lab.stores()
    # its creation also creates the bucket, and brings the images into the page cache
    lab.migrated_database()
    return [
        _compared(lab, shared, "external stores, empty database, until Ready", None, EMPTY_LIMIT),
        _compared(lab, shared, "external stores, migrated database, until Ready", TEMPLATE, MIGRATED_LIMIT),
    ]


def _compared(lab: Lab, shared: Stores, figure: str, template: str | None, limit: float) -> Row:
    ours: list[float] = []
    against: list[float] = []
    for turn in range(lab.rounds):
        name = f"{'migrated' if template else 'empty'}_{turn}"
        ours.append(_ours(lab, shared, shared.database(f"ours_{name}", template)))
        against.append(
            _bare(lab, shared, shared.database(f"bare_{name}", template), migrate=template is None)
        )
        lab.say(f"{figure}, round {turn + 1}: {ours[-1]:.1f} s, bare {against[-1]:.1f} s")
    what = "bare Deployment" if template else "migration, bare Deployment"
    return at_most(figure, ours, against, limit, what=what)


def _ours(lab: Lab, shared: Stores, database: str) -> float:
    with lab.namespace("external") as kube:
        kube.apply(*shared.secrets())
        spec = shared.spec(database)
        began = time.monotonic()
        kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "MLflowServer",
                "metadata": {"name": "tracking"},
                "spec": spec,
            }
        )
        ready = lab.until(
            "the server is Ready", lambda: is_ready(kube.get("MLflowServer", "tracking")), timeouts.READY
        )
        return ready - began


def _bare(lab: Lab, shared: Stores, database: str, *, migrate: bool) -> float:
    with lab.namespace("bare") as kube:
        image = kube.settings.pins["IMAGE_MLFLOW"]
        began = time.monotonic()
        if migrate:
            kube.apply(plain.migration(image, shared.uri(database)))
            lab.until(
                "the migration Job has succeeded",
                lambda: _status(kube, "Job", "migration", "succeeded"),
                timeouts.READY,
            )
        kube.apply(plain.bare(image, shared.uri(database), shared.env(database)))
        ready = lab.until(
            "the plain server is ready",
            lambda: _status(kube, "Deployment", "bare", "readyReplicas"),
            timeouts.READY,
        )
        return ready - began


def _status(kube: Kube, kind: str, name: str, field: str) -> bool:
    return bool((kube.need(kind, name).get("status") or {}).get(field))
