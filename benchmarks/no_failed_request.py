"""Number of log-metric requests that fail while the server's pods are replaced."""

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
from tests.e2e.server import LITTLE, Server, is_ready, small

from benchmarks import stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, none_of, reported

REQUESTS, QUICK_REQUESTS = 10_000, 1_200
A_SECOND = 20
CLIENTS = 8
"""Enough to keep the rate while some of them wait for an answer."""


@dataclass
class Sent:
    """Outcome of the requests so far."""

    ok: int = 0
    errors: list[str] = field(default_factory=list)
    slowest: float = 0.0


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, two replicas, and the pods that replace them."""
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * 4


def take(lab: Lab) -> list[Row]:
    """One row with a target, and two for information."""
    total = QUICK_REQUESTS if lab.quick else REQUESTS
    os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="30")
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("steady") as kube:
        kube.apply(*shared.secrets(), secret("first"))
        shared.database("steady", template)
        server = lab.ready(Server(kube).apply(spec(shared, "first")))
        lab.until("both replicas are ready", lambda: len(_ready(server)) == 2, timeouts.ROLLED)
        logged = mlflow.MlflowClient(tracking_uri=server.url)
        run = str(logged.create_run("0").info.run_id)

        sent, ends = Sent(), threading.Event()
        sender = threading.Thread(target=_send, args=(server.url, run, total, sent, ends))
        sender.start()
        try:
            _disturb(lab, server, sent, total)
            lab.until(f"{total} requests are sent", lambda: not sender.is_alive(), total / A_SECOND + 60, 0.5)
        except BaseException:
            ends.set()
            raise
        finally:
            sender.join()
        for error in sent.errors[:10]:
            lab.say(error)
        stored = _stored(logged, run)
        return [
            none_of(
                f"failed of {total} log-metric requests while it is changed and drained", [len(sent.errors)]
            ),
            none_of("metrics that were answered and are not stored", [sent.ok - stored]),
            reported("slowest of these requests", [sent.slowest], "s"),
        ]


def secret(value: str) -> Object:
    """A Secret from which the server reads an environment variable."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "more"},
        "stringData": {"BENCH_SECRET": value},
    }


def spec(shared: stores.Stores, word: str) -> Object:
    """Two replicas with an environment variable and a Secret of the user."""
    found = shared.spec("steady")
    return small(
        replicas=2,
        env=[{"name": "BENCH_VARIABLE", "value": word}],
        envFrom=[{"secretRef": {"name": "more"}}],
        **found,
    )


def _disturb(lab: Lab, server: Server, sent: Sent, total: int) -> None:
    """Changes a variable, changes a Secret and drains a pod; each when the change before it is complete."""
    for part, what in ((0.1, _variable), (0.4, _secret), (0.75, _drain)):
        count = int(part * total)
        lab.until(f"{count} requests are sent", partial(_past, sent, count), total / A_SECOND + 60, 0.5)
        before = {pod["metadata"]["uid"] for pod in server.pods("server")}
        began = time.monotonic()
        away = what(server, before)
        lab.until("other pods serve", partial(_changed, server, away), timeouts.ROLLED, 0.2)
        took = time.monotonic() - began
        lab.say(f"{what.__name__.strip('_')}: other pods after {took:.0f} s, {_count(sent)} sent")


def _past(sent: Sent, count: float) -> bool:
    return _count(sent) >= count


def _variable(server: Server, before: set[str]) -> set[str]:
    server.change(env=[{"name": "BENCH_VARIABLE", "value": "second"}])
    return before


def _secret(server: Server, before: set[str]) -> set[str]:
    server.kube.apply(secret("second"))
    return before


def _drain(server: Server, before: set[str]) -> set[str]:
    del before
    pod = server.pods("server")[0]["metadata"]
    server.kube.evict(pod["name"])
    return {pod["uid"]}


def _changed(server: Server, away: set[str]) -> bool:
    return len(_ready(server)) == 2 and not away & _all(server.kube)


def _ready(server: Server) -> list[Object]:
    return [pod for pod in server.pods("server") if is_ready(pod)]


def _all(kube: Kube) -> set[str]:
    # terminating pods count: they still answer
    return {pod["metadata"]["uid"] for pod in kube.list("Pod")}


def _count(sent: Sent) -> int:
    return sent.ok + len(sent.errors)


def _send(url: str, run: str, total: int, sent: Sent, ends: threading.Event) -> None:
    steps: queue.Queue[int | None] = queue.Queue()
    lock = threading.Lock()

    def work() -> None:
        own = mlflow.MlflowClient(tracking_uri=url)
        while (step := steps.get()) is not None:
            began = time.monotonic()
            try:
                own.log_metric(run, "loss", float(step), step=step)
            except Exception as error:
                with lock:
                    sent.errors.append(f"request {step}: {error}")
            else:
                with lock:
                    sent.ok += 1
                    sent.slowest = max(sent.slowest, time.monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for step in range(total):
        if ends.wait(max(0.0, began + step / A_SECOND - time.monotonic())):
            break
        steps.put(step)
    for _ in threads:
        steps.put(None)
    for thread in threads:
        thread.join()


def _stored(logged: mlflow.MlflowClient, run: str) -> int:
    found: list[Metric] = logged.get_metric_history(run, "loss")
    return len({metric.step for metric in found})
