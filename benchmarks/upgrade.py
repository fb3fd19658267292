"""A database of 100,000 runs goes over to today's version: how long nobody answers, beside doing it by hand; and the
tables alone, beside a plain `mlflow db upgrade`.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e import timeouts, versions
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, small

from benchmarks import plain, stores, years
from benchmarks.caller import Caller
from benchmarks.lab import Lab, is_ready, until
from benchmarks.rows import Row, at_most, told
from benchmarks.stores import Stores
from mlflow_operator import payload
from mlflow_operator.core.versions import TESTED

OLD, OLDEST = "3.14.0", "2.22.5"
"""Of the first every change is in the operator's own tables of versions; for the second metrics get a new index."""

LIMIT = 1.2
LONG = 900.0
ROUNDS = 3
"""At most: each copies a database of 750 MB."""

A = TypeVar("A")


def take(lab: Lab) -> list[Row]:
    """Three rows."""
    images = versions.images(lab.kube)
    rounds = min(lab.rounds, ROUNDS)
    count = years.runs(lab.quick)
    with lab.namespace("stores") as kube:
        shared = stores.start(kube)
        for version in (OLD, OLDEST):
            template(lab, shared, images[version], _years(version), count)
        ours, against, status = [], [], []
        for turn in range(rounds):
            seconds, said = _with_copy(shared, OLD, lambda name: _ours(lab, shared, name, images[OLD]))
            ours.append(seconds)
            status.append(said)
            against.append(_with_copy(shared, OLD, lambda name: _by_hand(lab, shared, name, images[OLD])))
            lab.say(f"nobody answers, round {turn + 1}: {ours[-1]:.1f} s, by hand {against[-1]:.1f} s")
        alone, plainly = [], []
        for turn in range(rounds):
            alone.append(_with_copy(shared, OLDEST, lambda name: _moved(shared, name, plainly=False)))
            plainly.append(_with_copy(shared, OLDEST, lambda name: _moved(shared, name, plainly=True)))
            lab.say(f"tables, round {turn + 1}: {alone[-1]:.1f} s, plainly {plainly[-1]:.1f} s")
    name = f"{count} runs"
    return [
        at_most(f"{name}, {OLD} to {TESTED}: nobody answers for", ours, against, LIMIT, what="by hand"),
        told(f"{name}, {OLD} to {TESTED}: the status tells of", status, "s"),
        at_most(f"{name}, tables of {OLDEST} to {TESTED}", alone, plainly, LIMIT, what="mlflow db upgrade"),
    ]


def _years(version: str) -> str:
    return f"years_{version.replace('.', '_')}"


def template(lab: Lab, shared: Stores, image: str, name: str, count: int) -> str:
    """A database with the tables of this image's version, and so many runs in it."""
    shared.database(name)
    ends(shared.kube, plain.job("make", image, _MIGRATE, {plain.URI: shared.uri(name)}))
    began = time.monotonic()
    shared.query(*years.filled(count), database=name)
    lab.say(f"{name}: {count} runs in {time.monotonic() - began:.0f} s")
    return name


_MIGRATE = ["python3", "-u", "-c", payload.MIGRATE]


def _with_copy(shared: Stores, version: str, take_it: Callable[[str], A]) -> A:
    copy = f"copy_of_{_years(version)}"
    shared.drop(copy)
    shared.database(copy, _years(version))
    try:
        return take_it(copy)
    finally:
        shared.drop(copy)


def _ours(lab: Lab, shared: Stores, database: str, image: str) -> tuple[float, float]:
    """Seconds as a caller has them, and as the status tells them."""
    with lab.namespace("ours") as kube:
        kube.apply(*shared.secrets())
        spec = small(workers=2, version=OLD, image=image, **shared.spec(database))
        server = Server(kube).apply(spec).ready(LONG)
        with Caller(server.url) as caller:
            server.change(version=TESTED, image=None)
            until("the server is Ready", lambda: is_ready(server.live()), LONG)
            caller.is_answered_again()
        return caller.longest, float(server.status["upgrade"]["downtimeSeconds"])


def _by_hand(lab: Lab, shared: Stores, database: str, old: str) -> float:
    """Scaled to nothing, migrated, and put up again with the new image: nobody loses a moment."""
    # the node's address is none of those that MLflow answers unasked
    hosts = {"name": "MLFLOW_SERVER_ALLOWED_HOSTS", "value": "*"}
    uri, env = shared.uri(database), [*shared.env(database), hosts]
    with lab.namespace("by-hand") as kube:
        new = kube.settings.pins["IMAGE_MLFLOW"]
        kube.apply(plain.bare(old, uri, env), plain.node_port("bare"))
        until("the old server is ready", lambda: _ready(kube), LONG)
        port = kube.need("Service", "bare")["spec"]["ports"][0]["nodePort"]
        with Caller(f"http://{kube.node_address}:{port}") as caller:
            caller.is_answered_again()
            kube.kubectl("scale", "deployment/bare", "--replicas=0")
            until("the old server is gone", lambda: not kube.list("Pod", {"app": "bare"}), timeouts.GONE)
            ends(kube, plain.migration(new, uri))
            kube.apply(plain.bare(new, uri, env))
            until("the new server is ready", lambda: _ready(kube), LONG)
            caller.is_answered_again()
        return caller.longest


def _moved(shared: Stores, database: str, *, plainly: bool) -> float:
    """Seconds until a Job has brought the tables up to today's version: MLflow's own command, or what we run."""
    image, uri = shared.kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database)
    ours = plain.job("ours", image, _MIGRATE, {plain.URI: uri})
    return ends(shared.kube, plain.migration(image, uri, "plainly") if plainly else ours)


def _ready(kube: Kube) -> bool:
    live = kube.get("Deployment", "bare") or {}
    state = live.get("status") or {}
    return (
        bool(state.get("readyReplicas")) and state.get("observedGeneration") == live["metadata"]["generation"]
    )


def ends(kube: Kube, job: Object) -> float:
    """Runs a Job to its good end and takes it away; the seconds from applied to complete."""
    name = job["metadata"]["name"]
    began = time.monotonic()
    kube.apply(job)

    def over() -> bool:
        state = kube.need("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--tail=20"))
        return bool(state.get("succeeded"))

    seconds = until(f"the Job {name} is complete", over, LONG) - began
    kube.kubectl("delete", "job", name)
    return seconds
