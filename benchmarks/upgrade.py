"""Upgrade of a database with 100,000 runs: the time without an answer, beside an upgrade by hand; and the schema
migration alone, beside a plain `mlflow db upgrade`.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e import timeouts, versions
from tests.e2e.kube import Kube, Object
from tests.e2e.server import LITTLE, Server, small

from benchmarks import plain, stores, years
from benchmarks.caller import Caller
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, at_most, reported
from benchmarks.stores import Stores
from benchmarks.waits import is_ready
from mlflow_operator import pod_scripts
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.versions import DEFAULT_VERSION

OLD, OLDEST = "3.14.0", "2.22.5"
"""The operator knows every migration from the first version; from the second one, metrics get a new index."""

LIMIT = 1.2
LONG = 900.0
BUILT = 900.0
"""Seconds until the registry holds the images of both versions, if nothing of them is built yet."""

ROUNDS = 3
"""At most: each round copies a database of 750 MB."""

A = TypeVar("A")


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, the old and the new server, and a migration Job."""
    server, job = Resources.of(LITTLE["requests"]), Resources.of(sizing.migration()["requests"])
    return stores.REQUESTS + server * 2 + job


def take(lab: Lab) -> list[Row]:
    """Three rows."""
    lab.say("images of earlier versions ...")
    images = lab.run(
        "the registry holds images of earlier versions", lambda: versions.images(lab.kube), BUILT
    )
    rounds = min(lab.rounds, ROUNDS)
    count = years.runs(lab.quick)
    shared = lab.stores()
    for version in (OLD, OLDEST):
        template(lab, shared, images[version], _years(version), count)
    ours, against, status = [], [], []
    for turn in range(rounds):
        seconds, downtime = _with_copy(shared, OLD, lambda name: _ours(lab, shared, name, images[OLD]))
        ours.append(seconds)
        status.append(downtime)
        against.append(_with_copy(shared, OLD, lambda name: _by_hand(lab, shared, name, images[OLD])))
        lab.say(f"no answer, round {turn + 1}: {ours[-1]:.1f} s, by hand {against[-1]:.1f} s")
    alone, plainly = [], []
    for turn in range(rounds):
        alone.append(_with_copy(shared, OLDEST, lambda name: _migrate(lab, shared, name, plainly=False)))
        plainly.append(_with_copy(shared, OLDEST, lambda name: _migrate(lab, shared, name, plainly=True)))
        lab.say(f"migration, round {turn + 1}: {alone[-1]:.1f} s, plain {plainly[-1]:.1f} s")
    shared.drop(_years(OLD), _years(OLDEST))
    name = f"{count} runs"
    return [
        at_most(
            f"{name}, {OLD} to {DEFAULT_VERSION}: nobody answers for", ours, against, LIMIT, what="by hand"
        ),
        reported(f"{name}, {OLD} to {DEFAULT_VERSION}: the status tells of", status, "s"),
        at_most(
            f"{name}, tables of {OLDEST} to {DEFAULT_VERSION}",
            alone,
            plainly,
            LIMIT,
            what="mlflow db upgrade",
        ),
    ]


def _years(version: str) -> str:
    return f"years_{version.replace('.', '_')}"


def template(lab: Lab, shared: Stores, image: str, name: str, count: int) -> str:
    """Creates a database with the schema of this image's version and `count` runs in it."""
    shared.database(name)
    run_job(lab, shared.kube, plain.job("create-schema", image, _MIGRATE, {plain.URI: shared.uri(name)}))
    began = time.monotonic()
    lab.run(
        f"{name}: {count} runs are inserted", lambda: shared.query(*years.filled(count), database=name), LONG
    )
    lab.say(f"{name}: {count} runs in {time.monotonic() - began:.0f} s")
    return name


_MIGRATE = ["python3", "-u", "-c", pod_scripts.MIGRATE]


def _with_copy(shared: Stores, version: str, take_it: Callable[[str], A]) -> A:
    copy = f"copy_of_{_years(version)}"
    shared.drop(copy)
    shared.database(copy, _years(version))
    try:
        return take_it(copy)
    finally:
        shared.drop(copy)


def _ours(lab: Lab, shared: Stores, database: str, image: str) -> tuple[float, float]:
    """Seconds without an answer as a client measures them, and as the status reports them."""
    with lab.namespace("ours") as kube:
        kube.apply(*shared.secrets())
        spec = small(workers=2, version=OLD, image=image, **shared.spec(database))
        server = lab.ready(Server(kube).apply(spec), LONG)
        with Caller(lab, server.url) as caller:
            server.change(version=DEFAULT_VERSION, image=None)
            lab.until("the upgraded server is Ready", lambda: is_ready(server.live()), LONG)
            caller.wait_answered()
        return caller.longest, float(server.status["upgrade"]["downtimeSeconds"])


def _by_hand(lab: Lab, shared: Stores, database: str, old: str) -> float:
    """Scales the server to zero, migrates the schema, and starts the new image, without a pause in between."""
    # by default MLflow does not answer requests for the node's address
    hosts = {"name": "MLFLOW_SERVER_ALLOWED_HOSTS", "value": "*"}
    uri, env = shared.uri(database), [*shared.env(database), hosts]
    with lab.namespace("by-hand") as kube:
        new = kube.settings.pins["IMAGE_MLFLOW"]
        kube.apply(plain.bare(old, uri, env), plain.node_port("bare"))
        lab.until("the old server is ready", lambda: _ready(kube), LONG)
        port = kube.need("Service", "bare")["spec"]["ports"][0]["nodePort"]
        with Caller(lab, f"http://{kube.node_address}:{port}") as caller:
            caller.wait_answered()
            kube.kubectl("scale", "deployment/bare", "--replicas=0")
            lab.until("the old server is gone", lambda: not kube.list("Pod", {"app": "bare"}), timeouts.GONE)
            run_job(lab, kube, plain.migration(new, uri))
            kube.apply(plain.bare(new, uri, env))
            lab.until("the new server is ready", lambda: _ready(kube), LONG)
            caller.wait_answered()
        return caller.longest


def _migrate(lab: Lab, shared: Stores, database: str, *, plainly: bool) -> float:
    """Seconds until a Job has migrated the schema to today's version: with MLflow's own command, or the operator's."""
    image, uri = shared.kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database)
    ours = plain.job("ours", image, _MIGRATE, {plain.URI: uri})
    return run_job(lab, shared.kube, plain.migration(image, uri, "plainly") if plainly else ours)


def _ready(kube: Kube) -> bool:
    live = kube.get("Deployment", "bare") or {}
    state = live.get("status") or {}
    return (
        bool(state.get("readyReplicas")) and state.get("observedGeneration") == live["metadata"]["generation"]
    )


def run_job(lab: Lab, kube: Kube, job: Object) -> float:
    """Runs a Job until it succeeds, and deletes it; returns the seconds from `kubectl apply` to its completion."""
    name = job["metadata"]["name"]
    began = time.monotonic()
    kube.apply(job)

    def over() -> bool:
        state = kube.need("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--tail=20"))
        return bool(state.get("succeeded"))

    seconds = lab.until(f"the Job {name} is complete", over, LONG) - began
    kube.kubectl("delete", "job", name)
    return seconds
