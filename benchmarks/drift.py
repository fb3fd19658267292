"""Time until the operator has repaired an object that a user changed or deleted."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.kube import Kube, Object
from tests.e2e.server import LITTLE, Server, is_ready, small

from benchmarks import stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, below

LIMIT = 1.0
WITHIN = 30.0
AT_REST = 120.0


@dataclass(frozen=True)
class Drift:
    """One kind of drift: what is done to which object, and how its repair is recognized."""

    what: str
    kind: str
    do: Callable[[Kube, str], None]
    undone: Callable[[Object, Object], bool]


def env(deployment: Object) -> dict[str, str]:
    """The environment variables of the server's container that have a literal value."""
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


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, and of three replicas beside the pod of an edited Deployment."""
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * 4


def take(lab: Lab) -> list[Row]:
    """One row per kind of drift, each at rest. The clock starts before the change is sent."""
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("drift") as kube:
        kube.apply(*shared.secrets())
        server = lab.ready(Server(kube).apply(small(**shared.spec(shared.database("drift", template)))))
        rows = []
        for drift in DRIFTS:
            took = [_one(lab, server, drift) for _ in range(lab.rounds)]
            lab.say(f"{drift.what}: {', '.join(f'{seconds:.2f}' for seconds in took)} s")
            rows.append(below(f"drift repaired: {drift.what}", took, LIMIT, "s"))
        return rows


def _one(lab: Lab, server: Server, drift: Drift) -> float:
    # the Service and the Deployment have the server's name
    kube, name = server.kube, server.name
    lab.ready(server)
    lab.until("no pod of the server starts or terminates", lambda: _at_rest(server), AT_REST)
    before = kube.need(drift.kind, name)
    what = f"the operator repairs this drift: {drift.what}"
    return lab.run(what, lambda: _repaired(kube, name, drift, before), WITHIN + 10)


def _repaired(kube: Kube, name: str, drift: Drift, before: Object) -> float:
    """Makes the change; returns the seconds until it is repaired."""
    began = time.monotonic()
    drift.do(kube, name)
    # an edited object meets the criterion of its repair before the edit; a deleted one does not
    changed = not drift.undone(before, before)
    # a watch: polling would take CPU from the operator that repairs the object
    for now in kube.changes(before, WITHIN):
        undone = drift.undone(now, before)
        if changed and undone:
            return time.monotonic() - began
        changed |= not undone
    raise TimeoutError(f"not within {WITHIN:.0f} s: the operator repairs this drift: {drift.what}")


def _at_rest(server: Server) -> bool:
    """Whether the server has one pod, which is ready, and no other pod of it starts or terminates."""
    pods = server.running()
    return len(pods) == 1 and is_ready(pods[0]) and "deletionTimestamp" not in pods[0]["metadata"]
