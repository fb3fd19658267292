"""1, 10 and 50 servers at once: time until all are Ready, API requests, and memory of the operator.

The pods are simulated. Databases and buckets are real, and the operator checks them as usual.
"""

import time

from tests.e2e import operator_release
from tests.e2e.kube import Object
from tests.e2e.server import API_VERSION, SMALL_RESOURCES

from benchmarks import audit, curve, kwok, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, without_target
from benchmarks.waits import Waits, is_ready

SERVER_COUNTS = (1, 10, 50)
ALL_READY_TIMEOUT_SECONDS = 600.0
EXTRA_SAMPLE_SECONDS, QUICK_EXTRA_SAMPLE_SECONDS = 15.0, 5.0
"""Time for which the operator's memory is sampled longer, because it may still grow."""


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, and the real server that creates the migrated database."""
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * 2


def measure(lab: Lab) -> list[Row]:
    """Return three rows for each number of servers, and draw the chart."""
    points = []
    shared, template = lab.stores(), lab.migrated_database()
    with audit.count_requests(lab.kube), kwok.simulated_node(lab):
        for count in SERVER_COUNTS:
            points.append(_measure_point(lab, shared, template, count))
            lab.log(
                f"{count} servers: Ready after {points[-1].seconds:.1f} s, {points[-1].requests:.0f} requests, "
                f"{points[-1].peak_memory_mib:.0f} MiB"
            )
    lab.results_folder.mkdir(parents=True, exist_ok=True)
    curve.draw(points, lab.results_folder / "servers.svg")
    rows = []
    for point in points:
        name = f"{point.servers} server{'s' if point.servers > 1 else ''} at once (simulated pods)"
        rows += [
            without_target(f"{name}: all Ready after", [point.seconds], "s"),
            without_target(
                f"{name}: API requests per server until then", [point.requests / point.servers], ""
            ),
            without_target(f"{name}: peak working set of the leader", [point.peak_memory_mib], "MiB"),
        ]
    return rows


def _measure_point(lab: Lab, shared: stores.Stores, template: str, count: int) -> curve.Point:
    databases = [shared.create_database(f"scale_{count}_{number}", template) for number in range(count)]
    try:
        return _measure(lab, shared, databases)
    finally:
        shared.drop(*databases)


def _measure(lab: Lab, shared: stores.Stores, databases: list[str]) -> curve.Point:
    count = len(databases)
    restart_operator(lab)
    # its pods must be gone before kwok ends, because kwok deletes them
    with lab.namespace("scale", wait_deleted=True) as kube, WorkingSet(kube) as memory:
        kube.apply(*shared.secrets())
        before = audit.request_count(kube)
        start = time.monotonic()
        kube.apply(*(_server(database, shared) for database in databases))

        def ready() -> int:
            return sum(map(is_ready, kube.list("MLflowServer")))

        seconds = (
            lab.wait_for(
                f"{count} servers are Ready",
                lambda: ready() == count,
                ALL_READY_TIMEOUT_SECONDS,
                0.2,
                state=lambda: f"{ready()} are Ready",
            )
            - start
        )
        request_count = audit.request_count(kube) - before
        continue_sampling(lab)
        return curve.Point(count, seconds, request_count, memory.peak_mib)


def continue_sampling(lab: Lab) -> None:
    """Continue sampling the operator's memory."""
    seconds = QUICK_EXTRA_SAMPLE_SECONDS if lab.quick else EXTRA_SAMPLE_SECONDS
    lab.log(f"sampling the operator's memory for {seconds:.0f} s more")
    time.sleep(seconds)


def _server(database: str, shared: stores.Stores) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": database.replace("_", "-")},
        "spec": {**shared.spec(database), **kwok.placement()},
    }


def restart_operator(waits: Waits) -> None:
    """Replace the operator's pod, so that earlier servers do not affect its memory."""
    operator_kube = waits.kube.in_namespace(operator_release.NAMESPACE)
    before = {pod["metadata"]["uid"] for pod in operator_release.pods(waits.kube)}
    operator_kube.kubectl("rollout", "restart", f"deployment/{operator_release.RELEASE}")

    def leads() -> bool:
        pods = operator_release.pods(waits.kube)
        if len(pods) != 1 or pods[0]["metadata"]["uid"] in before:
            return False
        lease = operator_kube.require("Lease", operator_release.RELEASE)
        return str(lease["spec"].get("holderIdentity") or "").startswith(str(pods[0]["metadata"]["name"]))

    waits.wait_for("a new pod of the operator is the leader", leads, 180)
