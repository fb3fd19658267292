"""Number of failed log-metric requests while the server's pods are replaced."""

import os
import queue
import threading
import time
from dataclasses import dataclass, field
from functools import partial

import mlflow
from mlflow.entities import Metric
from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, Server, is_ready, small_spec

from benchmarks import stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, must_be_zero, without_target

REQUESTS, QUICK_REQUESTS = 10_000, 1_200
REQUESTS_PER_SECOND = 20
CLIENTS = 8
"""Enough clients to keep the rate while some of them wait for an answer."""


@dataclass
class RequestCounts:
    """Results of the requests so far."""

    succeeded: int = 0
    errors: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, two replicas, and the pods that replace them."""
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * 4


def measure(lab: Lab) -> list[Row]:
    """Return three rows: failed requests, lost metrics, and the slowest request."""
    total = QUICK_REQUESTS if lab.quick else REQUESTS
    os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="30")
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("steady") as kube:
        kube.apply(*shared.secrets(), secret("first"))
        shared.create_database("steady", template)
        server = lab.wait_ready(Server(kube).apply(spec(shared, "first")))
        lab.wait_for(
            "both replicas are ready", lambda: len(_ready_pods(server)) == 2, timeouts.ROLLOUT_SECONDS
        )
        client = mlflow.MlflowClient(tracking_uri=server.url)
        run_id = str(client.create_run("0").info.run_id)

        counts, stopped = RequestCounts(), threading.Event()
        sender = threading.Thread(target=_send, args=(server.url, run_id, total, counts, stopped))
        sender.start()
        try:
            _replace_pods(lab, server, counts, total)
            lab.wait_for(
                f"{total} requests are sent",
                lambda: not sender.is_alive(),
                total / REQUESTS_PER_SECOND + 60,
                0.5,
            )
        except BaseException:
            stopped.set()
            raise
        finally:
            sender.join()
        for error in counts.errors[:10]:
            lab.log(error)
        stored = _count_stored_metrics(client, run_id)
        return [
            must_be_zero(
                f"failed requests of {total} log-metric requests during changes and an eviction",
                [len(counts.errors)],
            ),
            must_be_zero("acknowledged metrics that are not stored", [counts.succeeded - stored]),
            without_target("slowest of these requests", [counts.slowest_seconds], "s"),
        ]


def secret(value: str) -> Object:
    """Return a Secret from which the server gets an environment variable."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "more"},
        "stringData": {"BENCH_SECRET": value},
    }


def spec(shared: stores.Stores, value: str) -> Object:
    """Return a spec with two replicas, an environment variable and a Secret of the user."""
    stores_spec = shared.spec("steady")
    return small_spec(
        replicas=2,
        env=[{"name": "BENCH_VARIABLE", "value": value}],
        envFrom=[{"secretRef": {"name": "more"}}],
        **stores_spec,
    )


def _replace_pods(lab: Lab, server: Server, counts: RequestCounts, total: int) -> None:
    """Change a variable, change a Secret and evict a pod, each after the previous change is complete."""
    for fraction, change in ((0.1, _change_variable), (0.4, _change_secret), (0.75, _evict_pod)):
        count = int(fraction * total)
        lab.wait_for(
            f"{count} requests are sent",
            partial(_has_sent, counts, count),
            total / REQUESTS_PER_SECOND + 60,
            0.5,
        )
        before = {pod["metadata"]["uid"] for pod in server.pods("server")}
        start = time.monotonic()
        replaced_uids = change(server, before)
        lab.wait_for(
            "other pods serve", partial(_is_replaced, server, replaced_uids), timeouts.ROLLOUT_SECONDS, 0.2
        )
        duration = time.monotonic() - start
        lab.log(
            f"{change.__name__.strip('_')}: other pods after {duration:.0f} s, {_sent_count(counts)} sent"
        )


def _has_sent(counts: RequestCounts, count: float) -> bool:
    return _sent_count(counts) >= count


def _change_variable(server: Server, before: set[str]) -> set[str]:
    server.patch_spec(env=[{"name": "BENCH_VARIABLE", "value": "second"}])
    return before


def _change_secret(server: Server, before: set[str]) -> set[str]:
    server.kube.apply(secret("second"))
    return before


def _evict_pod(server: Server, before: set[str]) -> set[str]:
    del before
    pod = server.pods("server")[0]["metadata"]
    server.kube.evict(pod["name"])
    return {pod["uid"]}


def _is_replaced(server: Server, replaced_uids: set[str]) -> bool:
    return len(_ready_pods(server)) == 2 and not replaced_uids & _pod_uids(server.kube)


def _ready_pods(server: Server) -> list[Object]:
    return [pod for pod in server.pods("server") if is_ready(pod)]


def _pod_uids(kube: Kube) -> set[str]:
    # includes terminating pods, because they still answer
    return {pod["metadata"]["uid"] for pod in kube.list("Pod")}


def _sent_count(counts: RequestCounts) -> int:
    return counts.succeeded + len(counts.errors)


def _send(url: str, run_id: str, total: int, counts: RequestCounts, stopped: threading.Event) -> None:
    steps: queue.Queue[int | None] = queue.Queue()
    lock = threading.Lock()

    def work() -> None:
        client_of_thread = mlflow.MlflowClient(tracking_uri=url)
        while (step := steps.get()) is not None:
            start_time = time.monotonic()
            try:
                client_of_thread.log_metric(run_id, "loss", float(step), step=step)
            except Exception as error:
                with lock:
                    counts.errors.append(f"request {step}: {error}")
            else:
                with lock:
                    counts.succeeded += 1
                    counts.slowest_seconds = max(counts.slowest_seconds, time.monotonic() - start_time)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    start_time = time.monotonic()
    for step in range(total):
        if stopped.wait(max(0.0, start_time + step / REQUESTS_PER_SECOND - time.monotonic())):
            break
        steps.put(step)
    for _ in threads:
        steps.put(None)
    for thread in threads:
        thread.join()


def _count_stored_metrics(client: mlflow.MlflowClient, run_id: str) -> int:
    found: list[Metric] = client.get_metric_history(run_id, "loss")
    return len({metric.step for metric in found})
