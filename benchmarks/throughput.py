"""Requests per second within the resources of a tutorial's manifest, beside that manifest."""

import time

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server

from benchmarks import plain, stores
from benchmarks.capacity import Resources
from benchmarks.client import Api, Body, load
from benchmarks.lab import Lab
from benchmarks.rows import Row, at_least, reported

RESOURCES: Object = {
    "requests": {"memory": "512Mi", "cpu": "250m"},
    "limits": {"memory": "1Gi", "cpu": "500m"},
}
REPLICAS, CLIENTS = 2, 16
"""Enough clients to use all CPU of both pods, and to spread evenly over them."""

SECONDS = 12.0
WARM_SECONDS = 6.0
RUNS = 30
LIMIT = 1.3
UP = 600.0
"""Four MLflow workers on half a core need more than a minute to start."""


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores and of both servers, which run at the same time."""
    return stores.REQUESTS + Resources.of(RESOURCES["requests"]) * (2 * REPLICAS)


def take(lab: Lab) -> list[Row]:
    """One row per endpoint; both servers run all the time, and requests alternate between them."""
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("rate", restricted=False) as kube:
        kube.apply(*shared.secrets())
        server = _start_ours(kube, shared, template)
        _start_theirs(kube, shared, template)
        ours = _ours(lab, server)
        theirs = _theirs(lab, kube)
        sides = {"ours": ours, "against": theirs}
        work = {name: requests(api) for name, api in sides.items()}
        rates: dict[tuple[str, str], list[float]] = {}
        failed = dict.fromkeys(sides, 0)
        for turn in range(-1, lab.rounds):
            seconds = SECONDS if turn >= 0 else WARM_SECONDS
            seconds /= 2 if lab.quick else 1
            lab.say(f"round {turn + 1}: {CLIENTS} clients send requests, four times {seconds:.0f} s")
            for path in ("runs/log-metric", "runs/search"):
                for name, api in sides.items():
                    done = load(api, path, work[name][path], seconds)
                    failed[name] += done.failed
                    if turn >= 0:
                        rates.setdefault((path, name), []).append(done.rate)
            for (path, name), found in rates.items():
                lab.say(f"  {path}, {name}: {found[-1]:.1f}/s")
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
            reported("requests that failed meanwhile, ours", [failed["ours"]], ""),
            reported("requests that failed meanwhile, plain manifest", [failed["against"]], ""),
        ]


def requests(api: Api) -> dict[str, list[Body]]:
    """The request of each client, by path. Creates the runs that the requests name."""
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


def _start_ours(kube: Kube, shared: stores.Stores, template: str) -> Server:
    spec = {"replicas": REPLICAS, "resources": RESOURCES, "service": {"type": "NodePort"}}
    return Server(kube).apply({**spec, **shared.spec(shared.database("ours", template))})


def _start_theirs(kube: Kube, shared: stores.Stores, template: str) -> None:
    database = shared.database("theirs", template)
    image, uri = kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database, "postgresql")
    kube.apply(plain.tutorial(image, uri, shared.env(database), RESOURCES), plain.node_port("tutorial"))


def _ours(lab: Lab, server: Server) -> Api:
    lab.ready(server, UP)
    kube = server.kube
    lab.until(
        "both replicas of the operator's server are ready", lambda: _ready(kube, server.name) == REPLICAS, UP
    )
    port = server.service["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"{server.name}.{kube.namespace}.svc:{plain.PORT}")


def _theirs(lab: Lab, kube: Kube) -> Api:
    lab.until(
        "both replicas of the tutorial's server are ready",
        lambda: _ready(kube, "tutorial") == REPLICAS,
        UP,
        0.5,
    )
    port = kube.need("Service", "tutorial")["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"localhost:{plain.PORT}")


def _ready(kube: Kube, name: str) -> int:
    return int((kube.need("Deployment", name).get("status") or {}).get("readyReplicas") or 0)
