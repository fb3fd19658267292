"""Upgrade of a server with 100,000 runs: the longest time without an answer, compared with a manual upgrade; and the
schema migration alone, compared with `mlflow db upgrade`.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e import timeouts, versions
from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, Server, small_spec

from benchmarks import plain, stores, years
from benchmarks.caller import RequestLoop
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, ratio_at_most, without_target
from benchmarks.stores import Stores
from benchmarks.waits import is_ready
from mlflow_operator import pod_scripts
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.versions import DEFAULT_VERSION

OLD_VERSION, OLDEST_VERSION = "3.14.0", "2.22.5"
"""The operator knows all schema migrations since the first version. The migration from the second version also creates
an index of the metrics."""

MAX_RATIO = 1.2
TIMEOUT_SECONDS = 900.0
BUILD_TIMEOUT_SECONDS = 900.0
"""Limit for the images of both versions, if none of them is built yet."""

MAX_ROUNDS = 3
"""Limits the number of rounds, because each round copies a database of 750 MB."""

ResultT = TypeVar("ResultT")


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, the old and the new server, and a migration Job."""
    server, job = Resources.of(SMALL_RESOURCES["requests"]), Resources.of(sizing.migration()["requests"])
    return stores.REQUESTS + server * 2 + job


def measure(lab: Lab) -> list[Row]:
    """Return three rows."""
    lab.log("waiting for images of earlier versions")
    images = lab.run(
        "the registry has the images of earlier versions",
        lambda: versions.images(lab.kube),
        BUILD_TIMEOUT_SECONDS,
    )
    rounds = min(lab.rounds, MAX_ROUNDS)
    count = years.run_count(lab.quick)
    shared = lab.stores()
    for version in (OLD_VERSION, OLDEST_VERSION):
        create_filled_database(lab, shared, images[version], _template_name(version), count)
    operator_gaps, manual_gaps, reported_downtimes = [], [], []
    for round_number in range(rounds):
        seconds, downtime = _with_copy(
            shared, OLD_VERSION, lambda name: _measure_operator(lab, shared, name, images[OLD_VERSION])
        )
        operator_gaps.append(seconds)
        reported_downtimes.append(downtime)
        manual_gaps.append(
            _with_copy(
                shared, OLD_VERSION, lambda name: _measure_manual(lab, shared, name, images[OLD_VERSION])
            )
        )
        lab.log(
            f"no answer, round {round_number + 1}: {operator_gaps[-1]:.1f} s, manual upgrade {manual_gaps[-1]:.1f} s"
        )
    job_seconds, plain_seconds = [], []
    for round_number in range(rounds):
        job_seconds.append(
            _with_copy(
                shared,
                OLDEST_VERSION,
                lambda name: _measure_migration(lab, shared, name, plain_command=False),
            )
        )
        plain_seconds.append(
            _with_copy(
                shared, OLDEST_VERSION, lambda name: _measure_migration(lab, shared, name, plain_command=True)
            )
        )
        lab.log(
            f"migration, round {round_number + 1}: {job_seconds[-1]:.1f} s, plain {plain_seconds[-1]:.1f} s"
        )
    shared.drop(_template_name(OLD_VERSION), _template_name(OLDEST_VERSION))
    name = f"{count} runs"
    return [
        ratio_at_most(
            f"{name}, {OLD_VERSION} to {DEFAULT_VERSION}: longest time without an answer",
            operator_gaps,
            manual_gaps,
            MAX_RATIO,
            baseline_name="manual upgrade",
        ),
        without_target(
            f"{name}, {OLD_VERSION} to {DEFAULT_VERSION}: downtime in the status", reported_downtimes, "s"
        ),
        ratio_at_most(
            f"{name}, schema migration from {OLDEST_VERSION} to {DEFAULT_VERSION}",
            job_seconds,
            plain_seconds,
            MAX_RATIO,
            baseline_name="mlflow db upgrade",
        ),
    ]


def _template_name(version: str) -> str:
    return f"years_{version.replace('.', '_')}"


def create_filled_database(lab: Lab, shared: Stores, image: str, name: str, count: int) -> str:
    """Create a database with the schema of this image's version and `count` runs; returns its name."""
    shared.create_database(name)
    run_job(
        lab,
        shared.kube,
        plain.job_manifest("create-schema", image, _MIGRATE_COMMAND, {plain.URI_VARIABLE: shared.uri(name)}),
    )
    start = time.monotonic()
    lab.run(
        f"{name}: {count} runs are inserted",
        lambda: shared.query(*years.fill_statements(count), database=name),
        TIMEOUT_SECONDS,
    )
    lab.log(f"{name}: {count} runs in {time.monotonic() - start:.0f} s")
    return name


_MIGRATE_COMMAND = ["python3", "-u", "-c", pod_scripts.MIGRATE]


def _with_copy(shared: Stores, version: str, measure_copy: Callable[[str], ResultT]) -> ResultT:
    copy = f"copy_of_{_template_name(version)}"
    shared.drop(copy)
    shared.create_database(copy, _template_name(version))
    try:
        return measure_copy(copy)
    finally:
        shared.drop(copy)


def _measure_operator(lab: Lab, shared: Stores, database: str, image: str) -> tuple[float, float]:
    """Upgrade a server; returns the longest time without an answer that a client measures, and that in the status."""
    with lab.namespace("ours") as kube:
        kube.apply(*shared.secrets())
        spec = small_spec(workers=2, version=OLD_VERSION, image=image, **shared.spec(database))
        server = lab.wait_ready(Server(kube).apply(spec), TIMEOUT_SECONDS)
        with RequestLoop(lab, server.url) as caller:
            server.patch_spec(version=DEFAULT_VERSION, image=None)
            lab.wait_for("the upgraded server is Ready", lambda: is_ready(server.resource()), TIMEOUT_SECONDS)
            caller.wait_answered()
        return caller.longest_gap_seconds, float(server.status["upgrade"]["downtimeSeconds"])


def _measure_manual(lab: Lab, shared: Stores, database: str, old_image: str) -> float:
    """Scale the server to 0, migrate the schema, and start the new image, without pauses in between."""
    # by default MLflow rejects requests for the node's address
    hosts = {"name": "MLFLOW_SERVER_ALLOWED_HOSTS", "value": "*"}
    uri, env = shared.uri(database), [*shared.env(database), hosts]
    with lab.namespace("by-hand") as kube:
        new_image = kube.settings.pins["IMAGE_MLFLOW"]
        kube.apply(plain.minimal_deployment(old_image, uri, env), plain.node_port("bare"))
        lab.wait_for("the old server is ready", lambda: _is_ready(kube), TIMEOUT_SECONDS)
        port = kube.require("Service", "bare")["spec"]["ports"][0]["nodePort"]
        with RequestLoop(lab, f"http://{kube.node_address}:{port}") as caller:
            caller.wait_answered()
            kube.kubectl("scale", "deployment/bare", "--replicas=0")
            lab.wait_for(
                "the old server is gone",
                lambda: not kube.list("Pod", {"app": "bare"}),
                timeouts.DELETION_SECONDS,
            )
            run_job(lab, kube, plain.migration_job(new_image, uri))
            kube.apply(plain.minimal_deployment(new_image, uri, env))
            lab.wait_for("the new server is ready", lambda: _is_ready(kube), TIMEOUT_SECONDS)
            caller.wait_answered()
        return caller.longest_gap_seconds


def _measure_migration(lab: Lab, shared: Stores, database: str, *, plain_command: bool) -> float:
    """Run a migration to the current version with MLflow's command or the operator's Job; returns the seconds."""
    image, uri = shared.kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database)
    operator_job = plain.job_manifest("ours", image, _MIGRATE_COMMAND, {plain.URI_VARIABLE: uri})
    return run_job(
        lab, shared.kube, plain.migration_job(image, uri, "plainly") if plain_command else operator_job
    )


def _is_ready(kube: Kube) -> bool:
    deployment = kube.get("Deployment", "bare") or {}
    state = deployment.get("status") or {}
    return (
        bool(state.get("readyReplicas"))
        and state.get("observedGeneration") == deployment["metadata"]["generation"]
    )


def run_job(lab: Lab, kube: Kube, job: Object) -> float:
    """Run a Job until it succeeds, and delete it; returns the seconds from `kubectl apply` to its completion."""
    name = job["metadata"]["name"]
    start = time.monotonic()
    kube.apply(job)

    def is_complete() -> bool:
        state = kube.require("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--tail=20"))
        return bool(state.get("succeeded"))

    seconds = lab.wait_for(f"the Job {name} is complete", is_complete, TIMEOUT_SECONDS) - start
    kube.kubectl("delete", "job", name)
    return seconds
