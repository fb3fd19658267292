"""Waiting for conditions: each wait has a limit, reports progress, and ends as soon as a pod cannot start."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

import requests
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from tests.cluster import node
from tests.e2e import operator_release, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION, Server

from benchmarks import pods
from benchmarks.capacity import Cluster

POLL = 0.05
"""Seconds between two checks of a condition: the precision of a measured time."""

LOOK_SECONDS = 2.0
"""Seconds between two requests for the pods that do not run yet."""

GRACE_SECONDS = 5.0
"""How long a pod may be unschedulable, or without its image, before the wait ends: the scheduler and the kubelet retry
at once what only came a moment too early."""

PROGRESS_SECONDS = 15.0
"""A wait that takes longer prints a line, and another one each time as many seconds have passed."""

ASKED = "/api/2.0/mlflow/experiments/search?max_results=1"
"""A cheap request that MLflow answers from its database."""

T = TypeVar("T")


class Waits:
    """The cluster and the clock of one run. `namespaces` are those whose pods are watched while a wait lasts."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.begin = time.monotonic()
        self.namespaces = {operator_release.NAMESPACE}
        self._looked = 0.0
        self._first_seen: dict[str, float] = {}
        self._client = config.new_client_from_config(str(kube.settings.kubeconfig))

    def say(self, text: str) -> None:
        """Prints a line, with the seconds since the run began."""
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", flush=True)

    @property
    def kubectl(self) -> str:
        """How a user calls kubectl on this cluster, without any settings in the shell."""
        return f"{self.kube.settings.bin / 'kubectl'} --kubeconfig={self.kube.settings.kubeconfig}"

    def until(
        self,
        what: str,
        check: Callable[[], object],
        within: float,
        poll: float = POLL,
        state: Callable[[], str] | None = None,
    ) -> float:
        """Waits until `check` returns a true value; returns that moment on the monotonic clock.

        `what` names the condition, `state` describes what there is instead. Raises TimeoutError after `within` seconds,
        and PodBlockedError as soon as a pod of the benchmark cannot start.
        """
        began = time.monotonic()
        reported = PROGRESS_SECONDS
        while not check():
            waited = time.monotonic() - began
            if waited > within:
                raise TimeoutError(f"not within {within:.0f} s: {what}{_suffix(state)}")
            if waited > reported:
                reported += PROGRESS_SECONDS
                self.say(f"  waiting for {waited:.0f} s (limit: {within:.0f} s): {what}{_suffix(state)}")
            self._look()
            time.sleep(poll)
        return time.monotonic()

    def run(self, what: str, work: Callable[[], T], within: float) -> T:
        """Calls `work`, which blocks, in a thread, and waits for its result as `until` does."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        self.until(what, future.done, within)
        return future.result()

    def ready(self, server: Server, within: float = timeouts.READY) -> Server:
        """Waits until an MLflowServer is Ready and, if it has a NodePort, answers there."""

        def state() -> str:
            found = server.conditions().get("Ready") or {}
            return str(found.get("message") or "")

        def done() -> bool:
            return is_ready(server.kube.get("MLflowServer", server.name))

        self.until(f"MLflowServer {server.name} is Ready", done, within, state=state)
        if server.service["spec"]["type"] == "NodePort":
            url = server.url
            self.until(f"{url} answers", lambda: answers(url), timeouts.ANSWERS)
        return server

    def cluster(self) -> Cluster:
        """The node and everything that has requests on it."""
        core = client.CoreV1Api(self._client)
        return Cluster(
            node=json.loads(core.read_node(node.CONTAINER, _preload_content=False).data),
            pods=self._pods(),
            namespaces=json.loads(core.list_namespace(_preload_content=False).data)["items"],
            servers=self._servers(),
        )

    def _servers(self) -> list[Object]:
        group, version = API_VERSION.split("/")
        custom = client.CustomObjectsApi(self._client)
        try:
            found: list[Object] = custom.list_cluster_custom_object(group, version, "mlflowservers")["items"]
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                # the CRD is not installed yet
                return []
            raise
        return found

    def _pods(self, selector: str = "") -> list[Object]:
        core = client.CoreV1Api(self._client)
        answer = core.list_pod_for_all_namespaces(field_selector=selector, _preload_content=False)
        found: list[Object] = json.loads(answer.data)["items"]
        return found

    def _look(self) -> None:
        """Raises PodBlockedError if a pod of the benchmark has not been able to start for GRACE_SECONDS."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        watched = (
            pod
            for pod in self._pods("status.phase=Pending")
            if pod["metadata"]["namespace"] in self.namespaces
        )
        found = [obstacle for pod in watched if (obstacle := pods.obstacle(pod))]
        self._first_seen = {each.uid: self._first_seen.get(each.uid, now) for each in found}
        for obstacle in found:
            if now - self._first_seen[obstacle.uid] < GRACE_SECONDS:
                continue
            cluster = self.cluster()
            if not obstacle.image and (
                pods.fits(obstacle, cluster) or pods.frees_soon(cluster.pods, datetime.now(UTC))
            ):
                continue
            raise pods.PodBlockedError(pods.explain(obstacle, cluster, self.kubectl, self.namespaces))


def _suffix(state: Callable[[], str] | None) -> str:
    found = state() if state else ""
    return f" ({found})" if found else ""


def is_ready(server: Object | None) -> bool:
    """Whether an MLflowServer is Ready, for the present generation of its spec."""
    if server is None:
        return False
    status = server.get("status") or {}
    return status.get("observedGeneration") == server["metadata"]["generation"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or []
    )


def answers(url: str) -> bool:
    """Whether MLflow answers a request."""
    try:
        return requests.get(url + ASKED, timeout=5).ok
    except requests.RequestException:
        return False
