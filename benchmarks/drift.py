"""How soon what somebody changed or deleted is as it should be again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, is_ready, small

from benchmarks import stores
from benchmarks.lab import Lab, until
from benchmarks.rows import Row, below

LIMIT = 1.0
WITHIN = 30.0
AT_REST = 120.0


@dataclass(frozen=True)
class Drift:
    """One sort of it: what is done to which object, and when that is undone."""

    what: str
    kind: str
    do: Callable[[Kube, str], None]
    undone: Callable[[Object, Object], bool]


def env(deployment: Object) -> dict[str, str]:
    """The plain variables of the server's container."""
    found = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {e["name"]: str(e.get("value", "")) for e in found}


def _scale(kube: Kube, name: str) -> None:
    kube.patch("Deployment", name, {"spec": {"replicas": 3}})


def _edit(kube: Kube, name: str) -> None:
    _set(kube, name, "MLFLOW_WORKERS", "7")


def _add(kube: Kube, name: str) -> None:
    _set(kube, name, "SURPRISE", "1")


def _set(kube: Kube, name: str, variable: str, value: str) -> None:
    containers = kube.need("Deployment", name)["spec"]["template"]["spec"]["containers"]
    others = [e for e in containers[0]["env"] if e["name"] != variable]
    containers[0]["env"] = [*others, {"name": variable, "value": value}]
    kube.patch("Deployment", name, {"spec": {"template": {"spec": {"containers": containers}}}})


def _another(now: Object, before: Object) -> bool:
    meta = now["metadata"]
    return bool(meta["uid"] != before["metadata"]["uid"])


DRIFTS = (
    Drift("Deployment scaled", "Deployment", _scale, lambda now, _: now["spec"]["replicas"] == 1),
    Drift("Deployment edited", "Deployment", _edit, lambda now, _: env(now)["MLFLOW_WORKERS"] == "1"),
    Drift("variable added by hand", "Deployment", _add, lambda now, _: "SURPRISE" not in env(now)),
    Drift("Service deleted", "Service", lambda kube, name: kube.delete("Service", name), _another),
    Drift("Deployment deleted", "Deployment", lambda kube, name: kube.delete("Deployment", name), _another),
)


def take(lab: Lab) -> list[Row]:
    """A row a sort of drift, each from rest. The clock starts before the change is sent."""
    with lab.namespace("stores") as base, lab.namespace("drift") as kube:
        shared = stores.start(base)
        kube.apply(*shared.secrets())
        server = Server(kube).apply(small(**shared.spec(shared.database("drift")))).ready()
        rows = []
        for drift in DRIFTS:
            took = [_one(server, drift) for _ in range(lab.rounds)]
            lab.say(f"{drift.what}: {', '.join(f'{seconds:.2f}' for seconds in took)} s")
            rows.append(below(f"drift repaired: {drift.what}", took, LIMIT, "s"))
        return rows


def _one(server: Server, drift: Drift) -> float:
    # both are called after the server
    kube, name = server.kube, server.name
    server.ready()
    until("the node is at rest", lambda: _at_rest(server), AT_REST)
    before = kube.need(drift.kind, name)
    began = time.monotonic()
    drift.do(kube, name)
    # of what is edited the state before is as it should be, of what is deleted it is not
    changed = not drift.undone(before, before)
    # told, not asked for: asking all the time would take the processor from those that repair
    for now in kube.changes(before, WITHIN):
        undone = drift.undone(now, before)
        if changed and undone:
            return time.monotonic() - began
        changed |= not undone
    raise TimeoutError(f"{drift.what} is not undone within {WITHIN:.0f} s")


def _at_rest(server: Server) -> bool:
    """Whether none of its pods starts or ends any more."""
    pods = server.running()
    return len(pods) == 1 and is_ready(pods[0]) and "deletionTimestamp" not in pods[0]["metadata"]
