"""Requests per second with the resources of a tutorial's manifest, compared with that manifest."""

import time

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server

from benchmarks import plain, stores
from benchmarks.capacity import Resources
from benchmarks.client import Api, Body, generate_load
from benchmarks.lab import Lab
from benchmarks.rows import Row, ratio_at_least, without_target

RESOURCES: Object = {
    "requests": {"memory": "512Mi", "cpu": "250m"},
    "limits": {"memory": "1Gi", "cpu": "500m"},
}
REPLICAS, CLIENTS = 2, 16
"""Enough clients to use all CPU of both pods, and to be distributed evenly."""

ROUND_SECONDS = 12.0
WARM_SECONDS = 6.0
RUN_COUNT = 30
MIN_RATIO = 1.3
START_TIMEOUT_SECONDS = 600.0
"""Four MLflow workers on half a core need more than a minute to start."""


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores and both servers, which run in parallel."""
    return stores.REQUESTS + Resources.of(RESOURCES["requests"]) * (2 * REPLICAS)


def measure(lab: Lab) -> list[Row]:
    """Return one row per endpoint, and two with failed requests. Both servers run; the load alternates between them."""
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("rate", restricted=False) as kube:
        kube.apply(*shared.secrets())
        server = _start_operator_server(kube, shared, template)
        _start_plain_server(kube, shared, template)
        operator_api = _operator_api(lab, server)
        plain_api = _plain_api(lab, kube)
        apis = {"operator": operator_api, "plain": plain_api}
        bodies = {name: create_requests(api) for name, api in apis.items()}
        rates: dict[tuple[str, str], list[float]] = {}
        failed = dict.fromkeys(apis, 0)
        for round_number in range(-1, lab.rounds):
            seconds = ROUND_SECONDS if round_number >= 0 else WARM_SECONDS
            seconds /= 2 if lab.quick else 1
            lab.log(f"round {round_number + 1}: {CLIENTS} clients send requests, four times {seconds:.0f} s")
            for path in ("runs/log-metric", "runs/search"):
                for name, api in apis.items():
                    result = generate_load(api, path, bodies[name][path], seconds)
                    failed[name] += result.failed
                    if round_number >= 0:
                        rates.setdefault((path, name), []).append(result.requests_per_second)
            for (path, name), samples in rates.items():
                lab.log(f"  {path}, {name}: {samples[-1]:.1f}/s")
        what = "plain manifest, job execution disabled"
        return [
            *(
                ratio_at_least(
                    f"{path.removeprefix('runs/')} requests per second, {REPLICAS} replicas with 500m CPU",
                    rates[path, "operator"],
                    rates[path, "plain"],
                    MIN_RATIO,
                    unit="/s",
                    baseline_name=what,
                )
                for path in ("runs/log-metric", "runs/search")
            ),
            without_target("failed requests meanwhile, operator", [failed["operator"]], ""),
            without_target("failed requests meanwhile, plain manifest", [failed["plain"]], ""),
        ]


def create_requests(api: Api) -> dict[str, list[Body]]:
    """Create runs; returns the request bodies of all clients by path."""
    experiment = api.post_json("experiments/create", {"name": f"rate-{time.time_ns()}"})["experiment_id"]
    runs = []
    for _ in range(RUN_COUNT):
        response = api.post_json("runs/create", {"experiment_id": experiment, "start_time": 1})
        runs.append(response["run"]["info"]["run_id"])
        batch = {
            "run_id": runs[-1],
            "params": [{"key": f"p{i}", "value": str(i)} for i in range(5)],
            "metrics": [{"key": f"m{i}", "value": float(i), "timestamp": 1, "step": 0} for i in range(5)],
        }
        api.post_json("runs/log-batch", batch)
    api.close()
    metric = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
    search = {"experiment_ids": [experiment], "max_results": 20, "order_by": ["metrics.m1 DESC"]}
    return {
        "runs/log-metric": [{**metric, "run_id": run} for run in runs[:CLIENTS]],
        "runs/search": [search] * CLIENTS,
    }


def _start_operator_server(kube: Kube, shared: stores.Stores, template: str) -> Server:
    spec = {"replicas": REPLICAS, "resources": RESOURCES, "service": {"type": "NodePort"}}
    return Server(kube).apply({**spec, **shared.spec(shared.create_database("operator", template))})


def _start_plain_server(kube: Kube, shared: stores.Stores, template: str) -> None:
    database = shared.create_database("plain", template)
    image, uri = kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database, "postgresql")
    kube.apply(
        plain.tutorial_deployment(image, uri, shared.env(database), RESOURCES), plain.node_port("tutorial")
    )


def _operator_api(lab: Lab, server: Server) -> Api:
    lab.wait_ready(server, START_TIMEOUT_SECONDS)
    kube = server.kube
    lab.wait_for(
        "both replicas of the operator's server are ready",
        lambda: ready_replicas(kube, server.name) == REPLICAS,
        START_TIMEOUT_SECONDS,
    )
    port = server.service["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"{server.name}.{kube.namespace}.svc:{plain.PORT}")


def _plain_api(lab: Lab, kube: Kube) -> Api:
    lab.wait_for(
        "both replicas of the tutorial's server are ready",
        lambda: ready_replicas(kube, "tutorial") == REPLICAS,
        START_TIMEOUT_SECONDS,
        0.5,
    )
    port = kube.require("Service", "tutorial")["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"localhost:{plain.PORT}")


def ready_replicas(kube: Kube, name: str) -> int:
    """Return how many pods of a Deployment are ready."""
    return int((kube.require("Deployment", name).get("status") or {}).get("readyReplicas") or 0)
