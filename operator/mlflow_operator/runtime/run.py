"""The operator's process: wait for the lease, then watch and reconcile until told to stop."""

import asyncio
import logging
import secrets
import signal
import socket
from asyncio import sslproto
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mlflow_operator.clients.s3.client import ObjectStores
from mlflow_operator.components.deletion import retained_event
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import kinds, lease_guard
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.errors import NamespaceTerminating
from mlflow_operator.kube.events import Events
from mlflow_operator.kube.leader_election import LeaderElector
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.model.versions import Images
from mlflow_operator.reconciler import ReconcileResult, reconcile
from mlflow_operator.runtime import health, watch, watch_check
from mlflow_operator.runtime.logging import about
from mlflow_operator.runtime.workqueue import WorkQueue
from mlflow_operator.status.metrics import Metrics

logger = logging.getLogger(__name__)

_PASSWORD_BYTES = 24
_LOOKUPS = 64
"""Threads in which names are resolved. While a company's DNS is silent each of its names holds one for most of a
minute. Python's own choice on two cores is six, and the cluster's own names would wait for those."""

_TLS_BUFFER = 64 * 1024
"""Bytes. asyncio keeps one for each connection it has open with TLS, a quarter of a MiB by default, and there are some
25 to the API server: one a kind that is watched, and a dozen to ask with. Read at a time is seldom as much."""


@dataclass(frozen=True)
class Settings:
    """What the operator is told at start; see the options of `mlflow-operator run`.

    `namespaces` empty: all. `port`: where health and metrics are served.
    """

    namespaces: tuple[str, ...]
    images: Images
    cluster_domain: str
    lease_namespace: str
    lease_name: str
    port: int


@dataclass
class _Readiness:
    """Which servers are Ready, for the metric alone."""

    metrics: Metrics
    known: dict[NamespacedName, str] = field(default_factory=dict)

    def note(self, key: NamespacedName, ready: str | None) -> None:
        if ready is None:
            self.known.pop(key, None)
        else:
            self.known[key] = ready
        counts: dict[str, int] = {}
        for status in self.known.values():
            counts[status] = counts.get(status, 0) + 1
        self.metrics.servers_by_ready(counts)


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT, then gives the lease back and returns.

    Raises LeaseLost when another may be leading: the process must end at once. WatchLost: it should begin anew, and
    the lease has been given back.
    """
    metrics = Metrics()
    sslproto.SSLProtocol.max_size = _TLS_BUFFER
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_LOOKUPS, "lookup"))
    cluster = await KubernetesClient.connect(metrics)
    # of its own, so that the lease is never renewed too late behind requests that an ailing API server sits on
    for_lease = await KubernetesClient.connect(metrics)
    # random, so that a container started again in the same pod is not taken for its former self
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    election = LeaderElector(
        for_lease,
        metrics,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=identity,
    )
    stores = ObjectStores()
    me = asyncio.current_task()
    if me is not None:
        # kopf brings handlers of its own when the work begins; these serve the standby
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    heart = health.EventLoopWatchdog()
    beating = asyncio.create_task(heart.tick(), name="heart")
    # a standby is as ready as the leader: else no rolling update of the operator would ever finish
    pages = health.app(metrics, alive=heart.check, ready=heart.check)
    try:
        async with health.serving(pages, settings.port):
            out = Dependencies(
                cluster=cluster,
                stores=stores,
                events=Events(cluster, identity),
                metrics=metrics,
                images=settings.images,
                cluster_domain=settings.cluster_domain,
                now=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                generate_password=lambda: secrets.token_urlsafe(_PASSWORD_BYTES),
            )
            with lease_guard.guarding(election.expires):
                await election.run(lambda: _lead(out, settings))
    except asyncio.CancelledError:
        logger.info("told to stop")
    except watch.WatchLost as lost:
        logger.warning("watching ended, and so does this process, to begin anew: %s", lost)
        raise
    finally:
        beating.cancel()
        stores.close()
        await cluster.close()
        await for_lease.close()


async def _lead(out: Dependencies, settings: Settings) -> None:
    readiness = _Readiness(out.metrics)
    gone: dict[NamespacedName, Object] = {}
    noticed: set[NamespacedName] = set()

    def deleted(key: NamespacedName, last: Object) -> None:
        noticed.discard(key)
        gone[key] = last

    async def handle(key: NamespacedName) -> float | None:
        with about(*key):
            try:
                was = gone.get(key)
                if was:
                    await retained_event.emit_retained_event(was, out)
                    if gone.get(key) is was:  # it may have been made and deleted once more
                        del gone[key]
                verdict = await reconcile(key, out)
            except NamespaceTerminating:
                verdict = ReconcileResult(None)  # nothing new is taken there, and what is there goes
        readiness.note(key, verdict.ready)
        if verdict.ready is None:
            queue.forget(key)
        return verdict.requeue_after

    queue: WorkQueue[NamespacedName] = WorkQueue(handle, out.metrics)
    # kopf, as it ends, cancels every task that began after it: ours must not be among them
    working = asyncio.create_task(queue.run(), name="queue")
    verifying = asyncio.create_task(
        watch_check.verify(lambda: _servers(out.cluster, settings.namespaces), noticed), name="watch check"
    )
    await asyncio.sleep(0)
    watching = asyncio.create_task(
        watch.run(queue.add, noticed.add, deleted, settings.namespaces), name="watch"
    )
    tasks = (working, verifying, watching)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _servers(cluster: KubernetesClient, namespaces: tuple[str, ...]) -> set[NamespacedName]:
    """The keys of all MLflowServers."""
    found: set[NamespacedName] = set()
    for namespace in namespaces or (None,):
        listed = await cluster.list(kinds.MLFLOWSERVER, namespace)
        found |= {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed}
    return found
