"""Waits for conditions: each wait has a timeout, reports progress, and fails as soon as a pod cannot start."""

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

POLL_INTERVAL_SECONDS = 0.05
"""Interval between two checks of a condition, which is the precision of measured times."""

POD_CHECK_INTERVAL_SECONDS = 2.0
"""Interval between two requests for pending pods."""

GRACE_SECONDS = 5.0
"""How long a pod may be unschedulable, or without its image, before the wait fails: the scheduler and the kubelet retry
at once if a dependency appears a moment later."""

PROGRESS_INTERVAL_SECONDS = 15.0
"""A wait prints a line whenever this time has passed."""

SEARCH_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
"""A cheap request that MLflow answers from its database."""

ResultT = TypeVar("ResultT")


class Waits:
    """The cluster and the clock of a run. `namespaces` are those whose pods are checked during a wait."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.start_time = time.monotonic()
        self.namespaces = {operator_release.NAMESPACE}
        self._last_pod_check = 0.0
        self._first_seen: dict[str, float] = {}
        self._client = config.new_client_from_config(str(kube.settings.kubeconfig))

    def log(self, text: str) -> None:
        """Print a line with the seconds since the start of the run."""
        print(f"{time.monotonic() - self.start_time:7.1f} s  {text}", flush=True)

    @property
    def kubectl(self) -> str:
        """Command line of kubectl for this cluster, which needs no settings in the user's shell."""
        return f"{self.kube.settings.bin / 'kubectl'} --kubeconfig={self.kube.settings.kubeconfig}"

    def wait_for(
        self,
        what: str,
        check: Callable[[], object],
        within: float,
        poll: float = POLL_INTERVAL_SECONDS,
        state: Callable[[], str] | None = None,
    ) -> float:
        """Wait until `check` returns a true value; returns the time on the monotonic clock.

        `what` names the condition, `state` describes the current state. Raises TimeoutError after `within` seconds, and
        PodBlockedError as soon as a pod of the benchmark cannot start.
        """
        start = time.monotonic()
        next_report = PROGRESS_INTERVAL_SECONDS
        while not check():
            waited = time.monotonic() - start
            if waited > within:
                raise TimeoutError(f"not within {within:.0f} s: {what}{_suffix(state)}")
            if waited > next_report:
                next_report += PROGRESS_INTERVAL_SECONDS
                self.log(f"  waiting for {waited:.0f} s (limit: {within:.0f} s): {what}{_suffix(state)}")
            self._check_pods()
            time.sleep(poll)
        return time.monotonic()

    def run(self, what: str, work: Callable[[], ResultT], within: float) -> ResultT:
        """Call the blocking function `work` in a thread, and wait for its result like `wait_for`."""
        future: Future[ResultT] = Future()

        def call() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        self.wait_for(what, future.done, within)
        return future.result()

    def wait_ready(self, server: Server, within: float = timeouts.READY_SECONDS) -> Server:
        """Wait until an MLflowServer is Ready and, if it has a NodePort, answers there."""

        def state() -> str:
            condition = server.conditions().get("Ready") or {}
            return str(condition.get("message") or "")

        def done() -> bool:
            return is_ready(server.kube.get("MLflowServer", server.name))

        self.wait_for(f"MLflowServer {server.name} is Ready", done, within, state=state)
        if server.service["spec"]["type"] == "NodePort":
            url = server.url
            self.wait_for(
                f"{url} answers", lambda: is_answering(url, server.administrator), timeouts.ENDPOINT_SECONDS
            )
        return server

    def cluster(self) -> Cluster:
        """Read the node and all objects that decide whether a pod fits on it."""
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
        response = core.list_pod_for_all_namespaces(field_selector=selector, _preload_content=False)
        found: list[Object] = json.loads(response.data)["items"]
        return found

    def _check_pods(self) -> None:
        """Raise PodBlockedError if a pod of the benchmark has not been able to start for GRACE_SECONDS."""
        now = time.monotonic()
        if now - self._last_pod_check < POD_CHECK_INTERVAL_SECONDS:
            return
        self._last_pod_check = now
        watched = (
            pod
            for pod in self._pods("status.phase=Pending")
            if pod["metadata"]["namespace"] in self.namespaces
        )
        failures = [failure for pod in watched if (failure := pods.find_start_failure(pod))]
        self._first_seen = {failure.uid: self._first_seen.get(failure.uid, now) for failure in failures}
        for failure in failures:
            if now - self._first_seen[failure.uid] < GRACE_SECONDS:
                continue
            cluster = self.cluster()
            if not failure.image and (
                pods.fits_now(failure, cluster) or pods.frees_resources_soon(cluster.pods, datetime.now(UTC))
            ):
                continue
            raise pods.PodBlockedError(pods.explain(failure, cluster, self.kubectl, self.namespaces))


def _suffix(state: Callable[[], str] | None) -> str:
    text = state() if state else ""
    return f" ({text})" if text else ""


def is_ready(server: Object | None) -> bool:
    """Whether an MLflowServer is Ready for the current generation of its spec."""
    if server is None:
        return False
    status = server.get("status") or {}
    return status.get("observedGeneration") == server["metadata"]["generation"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or []
    )


def is_answering(url: str, login: tuple[str, str] | None = None) -> bool:
    """Whether MLflow answers a request, of this user if the server requires a password."""
    try:
        return requests.get(url + SEARCH_PATH, auth=login, timeout=5).ok
    except requests.RequestException:
        return False
