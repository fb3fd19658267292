"""API writes, API requests and memory of the operator while ten servers are at rest."""

import time

from tests.e2e.kube import Kube
from tests.e2e.server import LITTLE, Server, small

from benchmarks import audit, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, at_least_one, below, none_of, reported
from benchmarks.waits import is_ready

SERVERS, SECONDS = 10, 300.0
QUICK_SERVERS, QUICK_SECONDS = 3, 70.0
SETTLED, QUICK_SETTLED = 65.0, 15.0
"""Seconds without a write before the window begins; in a full run longer than a resync."""

MEMORY_LIMIT = 120.0
ALL_READY = 600.0


def peak_requests(quick: bool) -> Resources:
    """Of the shared stores, all servers, and the second replica of one of them."""
    servers = QUICK_SERVERS if quick else SERVERS
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * (servers + 1)


def take(lab: Lab) -> list[Row]:
    """Four rows, measured in one window that includes a resync of every server."""
    servers, seconds = (QUICK_SERVERS, QUICK_SECONDS) if lab.quick else (SERVERS, SECONDS)
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("rest") as kube, audit.counted(kube):
        kube.apply(*shared.secrets())
        for number in range(servers):
            database = shared.database(f"rest_{number}", template)
            Server(kube, f"rest-{number}").apply(small(**shared.spec(database)))

        def ready() -> int:
            return sum(map(is_ready, kube.list("MLflowServer")))

        lab.until(
            f"{servers} servers are Ready",
            lambda: ready() == servers,
            ALL_READY,
            0.5,
            state=lambda: f"{ready()} are Ready",
        )
        lab.say(f"{servers} servers are Ready")
        _settle(lab, kube)
        lab.say(f"measuring for {seconds:.0f} s")

        since, before = audit.now(), audit.requests(kube)
        with WorkingSet(kube) as memory:
            time.sleep(seconds)
        to, asked = audit.now(), audit.requests(kube) - before
        # the operator also looks at servers that are suspended
        everywhere = len(lab.cluster().servers)
        written = audit.writes(audit.read(kube), since, to)
        for write in written[:20]:
            lab.say(f"written at rest: {write}")
        return [
            none_of(f"writes at rest, {servers} servers, {seconds:.0f} s", [len(written)]),
            at_least_one(
                "writes when one Deployment is edited (control)", _control(lab, Server(kube, "rest-0"), to)
            ),
            below(
                f"working set of the leader, {servers} servers, {seconds:.0f} s",
                [memory.peak],
                MEMORY_LIMIT,
                "MiB",
            ),
            reported("API requests a minute at rest, a server", [asked / seconds * 60 / everywhere], ""),
        ]


def _settle(lab: Lab, kube: Kube) -> None:
    """Waits for a period without writes: status updates follow a start."""
    quiet = QUICK_SETTLED if lab.quick else SETTLED

    def nothing() -> bool:
        moment = time.time() - quiet
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        return not audit.writes(audit.read(kube), since, audit.now())

    lab.until(f"the operator has written nothing for {quiet:.0f} s", nothing, 300, 5)


def _control(lab: Lab, server: Server, since: str) -> int:
    """Number of writes that follow one edit."""
    kube = server.kube
    kube.patch("Deployment", server.name, {"spec": {"replicas": 2}})
    lab.until(
        "the edit is repaired", lambda: kube.need("Deployment", server.name)["spec"]["replicas"] == 1, 30
    )

    def seen() -> int:
        return len(audit.writes(audit.read(kube), since, audit.now()))

    lab.until("the audit log has the repair", seen, 30, 1)
    return seen()
