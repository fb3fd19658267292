"""Time from `kubectl apply` until Ready with external stores, compared with a migration Job and a plain Deployment."""

import time

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import API_VERSION

from benchmarks import plain, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, ratio_at_most
from benchmarks.stores import TEMPLATE_DATABASE, Stores
from benchmarks.waits import is_ready
from mlflow_operator.model import resources as sizing

EMPTY_MAX_RATIO, MIGRATED_MAX_RATIO = 1.25, 1.2


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, one server, and its migration Job."""
    server = sizing.server(workers=2, job_execution=False, fast_path=True)
    return stores.REQUESTS + Resources.of(server["requests"]) + Resources.of(sizing.migration()["requests"])


def measure(lab: Lab) -> list[Row]:
    """Return two rows: for an empty database, and for a database with the current schema."""
    shared = lab.stores()
    # this also creates the bucket, and loads the images into the page cache
    lab.migrated_database()
    return [
        _compare(lab, shared, "external stores, empty database, until Ready", None, EMPTY_MAX_RATIO),
        _compare(
            lab,
            shared,
            "external stores, migrated database, until Ready",
            TEMPLATE_DATABASE,
            MIGRATED_MAX_RATIO,
        ),
    ]


def _compare(lab: Lab, shared: Stores, figure: str, template: str | None, limit: float) -> Row:
    operator_seconds: list[float] = []
    baseline_seconds: list[float] = []
    for round_number in range(lab.rounds):
        name = f"{'migrated' if template else 'empty'}_{round_number}"
        operator_seconds.append(
            _measure_operator(lab, shared, shared.create_database(f"ours_{name}", template))
        )
        baseline_seconds.append(
            _measure_plain(
                lab, shared, shared.create_database(f"bare_{name}", template), migrate=template is None
            )
        )
        lab.log(
            f"{figure}, round {round_number + 1}: {operator_seconds[-1]:.1f} s, bare {baseline_seconds[-1]:.1f} s"
        )
    what = "plain Deployment" if template else "migration Job and plain Deployment"
    return ratio_at_most(figure, operator_seconds, baseline_seconds, limit, baseline_name=what)


def _measure_operator(lab: Lab, shared: Stores, database: str) -> float:
    with lab.namespace("external") as kube:
        kube.apply(*shared.secrets())
        spec = shared.spec(database)
        start = time.monotonic()
        kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "MLflowServer",
                "metadata": {"name": "tracking"},
                "spec": spec,
            }
        )
        ready = lab.wait_for(
            "the server is Ready",
            lambda: is_ready(kube.get("MLflowServer", "tracking")),
            timeouts.READY_SECONDS,
        )
        return ready - start


def _measure_plain(lab: Lab, shared: Stores, database: str, *, migrate: bool) -> float:
    with lab.namespace("bare") as kube:
        image = kube.settings.pins["IMAGE_MLFLOW"]
        start = time.monotonic()
        if migrate:
            kube.apply(plain.migration_job(image, shared.uri(database)))
            lab.wait_for(
                "the migration Job has succeeded",
                lambda: _status(kube, "Job", "migration", "succeeded"),
                timeouts.READY_SECONDS,
            )
        kube.apply(plain.minimal_deployment(image, shared.uri(database), shared.env(database)))
        ready = lab.wait_for(
            "the plain server is ready",
            lambda: _status(kube, "Deployment", "bare", "readyReplicas"),
            timeouts.READY_SECONDS,
        )
        return ready - start


def _status(kube: Kube, kind: str, name: str, field: str) -> bool:
    return bool((kube.require(kind, name).get("status") or {}).get(field))
