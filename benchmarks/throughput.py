"""Requests a second within a tutorial's resources, beside that tutorial's own manifest."""

import time

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server

from benchmarks import plain, stores
from benchmarks.client import Api, Body, load
from benchmarks.lab import Lab, until
from benchmarks.rows import Row, at_least, told

RESOURCES: Object = {
    "requests": {"memory": "512Mi", "cpu": "250m"},
    "limits": {"memory": "1Gi", "cpu": "500m"},
}
REPLICAS, CLIENTS = 2, 16
"""So many clients keep the processors of both pods busy, and spread over them evenly enough."""

SECONDS = 12.0
WARM_SECONDS = 6.0
RUNS = 30
LIMIT = 1.3
UP = 600.0
"""Four workers of MLflow on half a core take a minute and more."""


def take(lab: Lab) -> list[Row]:
    """A row an endpoint; both servers are there all the time and are asked in turns."""
    with lab.namespace("stores") as base, lab.namespace("rate", restricted=False) as kube:
        shared = stores.start(base)
        kube.apply(*shared.secrets())
        ours = _ours(kube, shared)
        lab.say("ours is Ready")
        theirs = _theirs(kube, shared)
        lab.say("the tutorial's is ready")
        sides = {"ours": ours, "against": theirs}
        work = {name: requests(api) for name, api in sides.items()}
        rates: dict[tuple[str, str], list[float]] = {}
        failed = dict.fromkeys(sides, 0)
        for turn in range(-1, lab.rounds):
            for path in ("runs/log-metric", "runs/search"):
                for name, api in sides.items():
                    done = load(api, path, work[name][path], SECONDS if turn >= 0 else WARM_SECONDS)
                    failed[name] += done.failed
                    if turn >= 0:
                        rates.setdefault((path, name), []).append(done.rate)
            told_so = ", ".join(f"{key[0]} {key[1]} {found[-1]:.1f}/s" for key, found in rates.items())
            lab.say(f"round {turn + 1}: {told_so}")
        what = "plain manifest, jobs off"
        return [
            *(
                at_least(
                    f"{path.removeprefix('runs/')} a second, {REPLICAS} replicas of half a core",
                    rates[path, "ours"],
                    rates[path, "against"],
                    LIMIT,
                    unit="/s",
                    what=what,
                )
                for path in ("runs/log-metric", "runs/search")
            ),
            told("requests that failed meanwhile, ours", [failed["ours"]], ""),
            told("requests that failed meanwhile, plain manifest", [failed["against"]], ""),
        ]


def requests(api: Api) -> dict[str, list[Body]]:
    """What each client sends, by path; made after the runs that they speak of."""
    experiment = api.must("experiments/create", {"name": f"rate-{time.time_ns()}"})["experiment_id"]
    runs = []
    for _ in range(RUNS):
        made = api.must("runs/create", {"experiment_id": experiment, "start_time": 1})
        runs.append(made["run"]["info"]["run_id"])
        logged = {
            "run_id": runs[-1],
            "params": [{"key": f"p{i}", "value": str(i)} for i in range(5)],
            "metrics": [{"key": f"m{i}", "value": float(i), "timestamp": 1, "step": 0} for i in range(5)],
        }
        api.must("runs/log-batch", logged)
    api.close()
    metric = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
    search = {"experiment_ids": [experiment], "max_results": 20, "order_by": ["metrics.m1 DESC"]}
    return {
        "runs/log-metric": [{**metric, "run_id": run} for run in runs[:CLIENTS]],
        "runs/search": [search] * CLIENTS,
    }


def _ours(kube: Kube, shared: stores.Stores) -> Api:
    spec = {"replicas": REPLICAS, "resources": RESOURCES, "service": {"type": "NodePort"}}
    server = Server(kube).apply({**spec, **shared.spec(shared.database("ours"))}).ready(UP)
    until("both are ready", lambda: _ready(kube, "tracking") == REPLICAS, UP)
    port = server.service["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"tracking.{kube.namespace}.svc:{plain.PORT}")


def _theirs(kube: Kube, shared: stores.Stores) -> Api:
    image, database = kube.settings.pins["IMAGE_MLFLOW"], shared.database("theirs")
    kube.apply(plain.migration(image, shared.uri(database)))
    until("its schema is there", lambda: (kube.need("Job", "migration")["status"] or {}).get("succeeded"), UP)
    uri = shared.uri(database, "postgresql")
    kube.apply(plain.tutorial(image, uri, shared.env(database), RESOURCES), plain.node_port("tutorial"))
    until("both of its pods are ready", lambda: _ready(kube, "tutorial") == REPLICAS, UP, 0.5)
    port = kube.need("Service", "tutorial")["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"localhost:{plain.PORT}")


def _ready(kube: Kube, name: str) -> int:
    return int((kube.need("Deployment", name).get("status") or {}).get("readyReplicas") or 0)
