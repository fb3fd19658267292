"""API writes, API requests and memory of the operator while nothing changes on ten servers."""

import time

from tests.e2e.kube import Kube
from tests.e2e.server import SMALL_RESOURCES, Server, small_spec

from benchmarks import audit, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, must_be_below, must_be_positive, must_be_zero, without_target
from benchmarks.waits import is_ready

SERVER_COUNT, WINDOW_SECONDS = 10, 300.0
QUICK_SERVER_COUNT, QUICK_WINDOW_SECONDS = 3, 70.0
QUIET_SECONDS, QUICK_QUIET_SECONDS = 65.0, 15.0
"""Time without a write before the measurement; in a full run longer than a resync."""

MAX_MEMORY_MIB = 120.0
ALL_READY_TIMEOUT_SECONDS = 600.0


def peak_requests(quick: bool) -> Resources:
    """Peak requests: the shared stores, all servers, and a second replica of one of them."""
    servers = QUICK_SERVER_COUNT if quick else SERVER_COUNT
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * (servers + 1)


def measure(lab: Lab) -> list[Row]:
    """Return four rows, measured in one window that includes a resync of every server."""
    servers, seconds = (
        (QUICK_SERVER_COUNT, QUICK_WINDOW_SECONDS) if lab.quick else (SERVER_COUNT, WINDOW_SECONDS)
    )
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("rest") as kube, audit.count_requests(kube):
        kube.apply(*shared.secrets())
        for number in range(servers):
            database = shared.create_database(f"rest_{number}", template)
            Server(kube, f"rest-{number}").apply(small_spec(**shared.spec(database)))

        def ready() -> int:
            return sum(map(is_ready, kube.list("MLflowServer")))

        lab.wait_for(
            f"{servers} servers are Ready",
            lambda: ready() == servers,
            ALL_READY_TIMEOUT_SECONDS,
            0.5,
            state=lambda: f"{ready()} are Ready",
        )
        lab.log(f"{servers} servers are Ready")
        _wait_until_quiet(lab, kube)
        lab.log(f"measuring for {seconds:.0f} s")

        since, before = audit.current_time(), audit.request_count(kube)
        with WorkingSet(kube) as memory:
            time.sleep(seconds)
        to, request_count = audit.current_time(), audit.request_count(kube) - before
        # the operator also reconciles suspended servers
        server_count = len(lab.cluster().servers)
        writes = audit.operator_writes(audit.read_log(kube), since, to)
        for write in writes[:20]:
            lab.log(f"write without a change: {write}")
        return [
            must_be_zero(f"API writes without changes, {servers} servers, {seconds:.0f} s", [len(writes)]),
            must_be_positive(
                "API writes after one edit of a Deployment (control)",
                _count_control_writes(lab, Server(kube, "rest-0"), to),
            ),
            must_be_below(
                f"working set of the leader, {servers} servers, {seconds:.0f} s",
                [memory.peak_mib],
                MAX_MEMORY_MIB,
                "MiB",
            ),
            without_target(
                "API requests per minute and server without changes",
                [request_count / seconds * 60 / server_count],
                "",
            ),
        ]


def _wait_until_quiet(lab: Lab, kube: Kube) -> None:
    """Wait for a period without writes, because a start is followed by status updates."""
    quiet = QUICK_QUIET_SECONDS if lab.quick else QUIET_SECONDS

    def nothing() -> bool:
        moment = time.time() - quiet
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        return not audit.operator_writes(audit.read_log(kube), since, audit.current_time())

    lab.wait_for(f"the operator has written nothing for {quiet:.0f} s", nothing, 300, 5)


def _count_control_writes(lab: Lab, server: Server, since: str) -> int:
    """Edit a Deployment; returns the number of the operator's writes that follow."""
    kube = server.kube
    kube.patch("Deployment", server.name, {"spec": {"replicas": 2}})
    lab.wait_for(
        "the edit is repaired", lambda: kube.require("Deployment", server.name)["spec"]["replicas"] == 1, 30
    )

    def seen() -> int:
        return len(audit.operator_writes(audit.read_log(kube), since, audit.current_time()))

    lab.wait_for("the audit log has the repair", seen, 30, 1)
    return seen()
