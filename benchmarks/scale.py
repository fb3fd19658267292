"""One, ten and fifty servers at once: time until all are Ready, API requests, and memory of the operator.

The pods are simulated. Databases, buckets and the operator's work on them are real.
"""

import time

from tests.e2e import operator_release
from tests.e2e.kube import Object
from tests.e2e.server import API_VERSION, LITTLE

from benchmarks import audit, curve, kwok, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, reported
from benchmarks.waits import Waits, is_ready

COUNTS = (1, 10, 50)
ALL_READY = 600.0
AFTER_SECONDS, QUICK_AFTER_SECONDS = 15.0, 5.0
"""The operator's memory is sampled for a while longer: it may still grow."""


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, and of the real server that creates the migrated database."""
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * 2


def take(lab: Lab) -> list[Row]:
    """Three rows for each number of servers, and the picture."""
    points = []
    shared, template = lab.stores(), lab.migrated_database()
    with audit.counted(lab.kube), kwok.pretending(lab):
        for count in COUNTS:
            points.append(_point(lab, shared, template, count))
            lab.say(
                f"{count} servers: Ready after {points[-1].seconds:.1f} s, {points[-1].requests:.0f} requests, "
                f"{points[-1].mebibytes:.0f} MiB"
            )
    lab.out.mkdir(parents=True, exist_ok=True)
    curve.draw(points, lab.out / "servers.svg")
    rows = []
    for point in points:
        name = f"{point.servers} server{'s' if point.servers > 1 else ''} at once (pods pretend)"
        rows += [
            reported(f"{name}: all Ready after", [point.seconds], "s"),
            reported(f"{name}: API requests until then, a server", [point.requests / point.servers], ""),
            reported(f"{name}: working set of the leader at most", [point.mebibytes], "MiB"),
        ]
    return rows


def _point(lab: Lab, shared: stores.Stores, template: str, count: int) -> curve.Point:
    databases = [shared.database(f"scale_{count}_{number}", template) for number in range(count)]
    try:
        return _measure(lab, shared, databases)
    finally:
        shared.drop(*databases)


def _measure(lab: Lab, shared: stores.Stores, databases: list[str]) -> curve.Point:
    count = len(databases)
    restart_operator(lab)
    # its pods must be gone before kwok, which removes them, ends
    with lab.namespace("scale", wait_deleted=True) as kube, WorkingSet(kube) as memory:
        kube.apply(*shared.secrets())
        before = audit.requests(kube)
        began = time.monotonic()
        kube.apply(*(_server(database, shared) for database in databases))

        def ready() -> int:
            return sum(map(is_ready, kube.list("MLflowServer")))

        seconds = (
            lab.until(
                f"{count} servers are Ready",
                lambda: ready() == count,
                ALL_READY,
                0.2,
                state=lambda: f"{ready()} are Ready",
            )
            - began
        )
        asked = audit.requests(kube) - before
        sample_longer(lab)
        return curve.Point(count, seconds, asked, memory.peak)


def sample_longer(lab: Lab) -> None:
    """Lets the samples of the operator's memory go on."""
    seconds = QUICK_AFTER_SECONDS if lab.quick else AFTER_SECONDS
    lab.say(f"sampling the operator's memory for {seconds:.0f} s more")
    time.sleep(seconds)


def _server(database: str, shared: stores.Stores) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": database.replace("_", "-")},
        "spec": {**shared.spec(database), **kwok.placement()},
    }


def restart_operator(waits: Waits) -> None:
    """Replaces the operator's pod: its memory must not be that of an earlier number of servers."""
    own = waits.kube.within(operator_release.NAMESPACE)
    before = {pod["metadata"]["uid"] for pod in operator_release.pods(waits.kube)}
    own.kubectl("rollout", "restart", f"deployment/{operator_release.RELEASE}")

    def leads() -> bool:
        pods = operator_release.pods(waits.kube)
        if len(pods) != 1 or pods[0]["metadata"]["uid"] in before:
            return False
        lease = own.need("Lease", operator_release.RELEASE)
        return str(lease["spec"].get("holderIdentity") or "").startswith(str(pods[0]["metadata"]["name"]))

    waits.until("a new pod of the operator is the leader", leads, 180)
