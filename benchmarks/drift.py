"""Time until the operator has repaired an object that a user changed or deleted."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, Server, is_ready, small_spec

from benchmarks import stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, must_be_below

MAX_SECONDS = 1.0
REPAIR_TIMEOUT_SECONDS = 30.0
IDLE_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Drift:
    """A kind of drift: how an object is changed, and how its repair is detected."""

    description: str
    kind: str
    apply: Callable[[Kube, str], None]
    is_repaired: Callable[[Object, Object], bool]


def environment(deployment: Object) -> dict[str, str]:
    """Return the environment variables of the server's container by name."""
    found = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {e["name"]: str(e.get("value", "")) for e in found}


def _scale(kube: Kube, name: str) -> None:
    kube.patch("Deployment", name, {"spec": {"replicas": 3}})


def _edit_variable(kube: Kube, name: str) -> None:
    _set_variable(kube, name, "MLFLOW_WORKERS", "7")


def _add_variable(kube: Kube, name: str) -> None:
    _set_variable(kube, name, "SURPRISE", "1")


def _set_variable(kube: Kube, name: str, variable: str, value: str) -> None:
    containers = kube.require("Deployment", name)["spec"]["template"]["spec"]["containers"]
    others = [e for e in containers[0]["env"] if e["name"] != variable]
    containers[0]["env"] = [*others, {"name": variable, "value": value}]
    kube.patch("Deployment", name, {"spec": {"template": {"spec": {"containers": containers}}}})


def _is_recreated(now: Object, before: Object) -> bool:
    meta = now["metadata"]
    return bool(meta["uid"] != before["metadata"]["uid"])


DRIFTS = (
    Drift("Deployment scaled", "Deployment", _scale, lambda now, _: now["spec"]["replicas"] == 1),
    Drift(
        "Deployment edited",
        "Deployment",
        _edit_variable,
        lambda now, _: environment(now)["MLFLOW_WORKERS"] == "1",
    ),
    Drift(
        "environment variable added",
        "Deployment",
        _add_variable,
        lambda now, _: "SURPRISE" not in environment(now),
    ),
    Drift("Service deleted", "Service", lambda kube, name: kube.delete("Service", name), _is_recreated),
    Drift(
        "Deployment deleted", "Deployment", lambda kube, name: kube.delete("Deployment", name), _is_recreated
    ),
)


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, and three replicas in addition to the pod of an edited Deployment."""
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * 4


def measure(lab: Lab) -> list[Row]:
    """Return one row per kind of drift, measured while the server is idle. The time starts before the change."""
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("drift") as kube:
        kube.apply(*shared.secrets())
        server = lab.wait_ready(
            Server(kube).apply(small_spec(**shared.spec(shared.create_database("drift", template))))
        )
        rows = []
        for drift in DRIFTS:
            samples = [_measure_one(lab, server, drift) for _ in range(lab.rounds)]
            lab.log(f"{drift.description}: {', '.join(f'{seconds:.2f}' for seconds in samples)} s")
            rows.append(must_be_below(f"drift repaired: {drift.description}", samples, MAX_SECONDS, "s"))
        return rows


def _measure_one(lab: Lab, server: Server, drift: Drift) -> float:
    # the Service and the Deployment have the server's name
    kube, name = server.kube, server.name
    lab.wait_ready(server)
    lab.wait_for("no pod of the server starts or terminates", lambda: _is_idle(server), IDLE_TIMEOUT_SECONDS)
    before = kube.require(drift.kind, name)
    what = f"the operator has repaired the drift: {drift.description}"
    return lab.run(what, lambda: _measure_repair(kube, name, drift, before), REPAIR_TIMEOUT_SECONDS + 10)


def _measure_repair(kube: Kube, name: str, drift: Drift, before: Object) -> float:
    """Make the change; returns the seconds until it is repaired."""
    start = time.monotonic()
    drift.apply(kube, name)
    # before the change, an edited object already meets the criterion of its repair, a deleted object does not
    changed = not drift.is_repaired(before, before)
    # watches, because polling would use CPU that the operator needs
    for now in kube.watch(before, REPAIR_TIMEOUT_SECONDS):
        undone = drift.is_repaired(now, before)
        if changed and undone:
            return time.monotonic() - start
        changed |= not undone
    raise TimeoutError(
        f"not within {REPAIR_TIMEOUT_SECONDS:.0f} s: the operator has repaired the drift: {drift.description}"
    )


def _is_idle(server: Server) -> bool:
    """Whether the server has one ready pod, and no other pod that starts or terminates."""
    pods = server.running_pods()
    return len(pods) == 1 and is_ready(pods[0]) and "deletionTimestamp" not in pods[0]["metadata"]
