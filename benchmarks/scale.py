"""One, ten and fifty servers at once: how long until all are Ready, what that asks of the API server, what it holds.

The pods pretend to run. Databases, buckets and the operator's work on them are real.
"""

import time

from tests.e2e import release
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION, Server, small

from benchmarks import audit, curve, kwok, stores
from benchmarks.lab import Lab, is_ready, until
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, told

COUNTS = (1, 10, 50)
ALL_READY = 600.0
AFTER_SECONDS = 15.0
"""The operator's memory is looked at for a while longer: it may take its time to let go, or to grow."""


def take(lab: Lab) -> list[Row]:
    """Three rows a number of servers, and the picture."""
    points = []
    with lab.namespace("stores") as base, audit.counted(base):
        shared = stores.start(base)
        _template(lab, shared)
        with kwok.pretending(base):
            for count in COUNTS:
                points.append(_point(lab, shared, count))
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
            told(f"{name}: all Ready after", [point.seconds], "s"),
            told(f"{name}: API requests until then, a server", [point.requests / point.servers], ""),
            told(f"{name}: working set of the leader at most", [point.mebibytes], "MiB"),
        ]
    return rows


def _template(lab: Lab, shared: stores.Stores) -> None:
    """A migrated database to copy: one real server makes it."""
    with lab.namespace("first") as kube:
        kube.apply(*shared.secrets())
        Server(kube).apply(small(**shared.spec(shared.database(stores.TEMPLATE)))).ready()


def _point(lab: Lab, shared: stores.Stores, count: int) -> curve.Point:
    databases = [shared.database(f"scale_{count}_{number}", stores.TEMPLATE) for number in range(count)]
    fresh_operator(lab.kube)
    with lab.namespace("scale") as kube, WorkingSet(kube) as memory:
        kube.apply(*shared.secrets())
        before = audit.requests(kube)
        began = time.monotonic()
        kube.apply(*(_server(database, shared) for database in databases))

        def ready() -> bool:
            return sum(map(is_ready, kube.list("MLflowServer"))) == count

        seconds = until(f"{count} servers are Ready", ready, ALL_READY, 0.2) - began
        asked = audit.requests(kube) - before
        time.sleep(AFTER_SECONDS)
        return curve.Point(count, seconds, asked, memory.peak)


def _server(database: str, shared: stores.Stores) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowServer",
        "metadata": {"name": database.replace("_", "-")},
        "spec": {**shared.spec(database), **kwok.placement()},
    }


def fresh_operator(kube: Kube) -> None:
    """Its memory must not be that of an earlier number of servers."""
    own = kube.within(release.NAMESPACE)
    own.kubectl("rollout", "restart", f"deployment/{release.RELEASE}")
    own.kubectl("rollout", "status", f"deployment/{release.RELEASE}", "--timeout=120s", within=130)
    until("one operator is left", lambda: len(release.pods(kube)) == 1, 60)
    (pod,) = release.pods(kube)
    name = str(pod["metadata"]["name"])

    def leads() -> bool:
        lease = own.need("Lease", release.RELEASE)
        return str(lease["spec"].get("holderIdentity") or "").startswith(name)

    until("it leads", leads, 60)
