"""Ten servers that nobody touches: what the operator writes, asks and holds in memory meanwhile."""

import time

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import Server, small

from benchmarks import audit, stores
from benchmarks.lab import Lab, is_ready, until
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, at_least_one, below, none_of, told

SERVERS, SECONDS = 10, 300.0
QUICK_SERVERS, QUICK_SECONDS = 3, 70.0
MEMORY_LIMIT = 120.0
ALL_READY = 600.0


def take(lab: Lab) -> list[Row]:
    """Four rows, out of one window that spans resyncs of every server."""
    with lab.namespace("stores") as base, lab.namespace("rest") as kube, audit.counted(kube):
        shared = stores.start(base)
        kube.apply(*shared.secrets())
        servers, seconds = (QUICK_SERVERS, QUICK_SECONDS) if lab.quick else (SERVERS, SECONDS)
        names = [f"rest-{number}" for number in range(servers)]
        first = Server(kube, names[0]).apply(small(**shared.spec(shared.database(stores.TEMPLATE)))).ready()
        _copied(kube, shared, names[1:])
        until("all are Ready", lambda: all(map(is_ready, kube.list("MLflowServer"))), ALL_READY, 0.5)
        lab.say(f"{servers} servers are Ready")
        _settled(kube)

        since, before = audit.now(), audit.requests(kube)
        with WorkingSet(kube) as memory:
            time.sleep(seconds)
        to, asked = audit.now(), audit.requests(kube) - before
        written = audit.writes(audit.read(kube), since, to)
        for write in written[:20]:
            lab.say(f"written at rest: {write}")
        return [
            none_of(f"writes at rest, {servers} servers, {seconds:.0f} s", [len(written)]),
            at_least_one("writes when one Deployment is edited (control)", _control(first, to)),
            below(
                f"working set of the leader, {servers} servers, {seconds:.0f} s",
                [memory.peak],
                MEMORY_LIMIT,
                "MiB",
            ),
            told("API requests a minute at rest, a server", [asked / seconds * 60 / servers], ""),
        ]


def _copied(kube: Kube, shared: stores.Stores, names: list[str]) -> None:
    """The rest of them, each on a copy of the first one's database; a few at a time, for two cores start them all."""
    # a database can only be copied while nobody is connected to it
    kube.patch("MLflowServer", "rest-0", {"spec": {"suspend": True}})
    until("nobody is connected", lambda: not Server(kube, "rest-0").pods("server"), timeouts.GONE)
    databases = [shared.database(name.replace("-", "_"), stores.TEMPLATE) for name in names]
    kube.patch("MLflowServer", "rest-0", {"spec": {"suspend": False}})
    for name, database in zip(names, databases, strict=True):
        Server(kube, name).apply(small(**shared.spec(database)))


def _settled(kube: Kube) -> None:
    """Until a whole resync has gone by without a write: what starts has its last words to say."""
    quiet = 65.0

    def nothing() -> bool:
        moment = time.time() - quiet
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        return not audit.writes(audit.read(kube), since, audit.now())

    until("a minute without a write", nothing, 300, 5)


def _control(server: Server, since: str) -> int:
    """Writes that follow one edit."""
    kube = server.kube
    kube.patch("Deployment", server.name, {"spec": {"replicas": 2}})
    until("the edit is undone", lambda: kube.need("Deployment", server.name)["spec"]["replicas"] == 1, 30)

    def seen() -> int:
        return len(audit.writes(audit.read(kube), since, audit.now()))

    until("the audit log has it", seen, 30, 1)
    return seen()
