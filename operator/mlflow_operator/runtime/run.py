"""The operator process: acquire the leader election Lease, then watch and reconcile until SIGTERM or SIGINT."""

import asyncio
import logging
import operator
import secrets
import signal
import socket
from asyncio import sslproto
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from mlflow_operator.clients import limits
from mlflow_operator.clients.ca_files import CAFiles
from mlflow_operator.clients.dns import Resolver
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.roles import PostgresRoles
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.clients.s3.client import ObjectStores
from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.seaweedfs_admin import SeaweedFSAdmin
from mlflow_operator.clients.s3.signed_request import SignedRequests
from mlflow_operator.components.deletion import retained_event
from mlflow_operator.framework import platform_choice
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.generated_secrets import generate_password
from mlflow_operator.framework.reconcile_result import ReconcileResult
from mlflow_operator.kube import kinds, lease_guard
from mlflow_operator.kube.apply import Applier
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.errors import Forbidden, NamespaceTerminating, NotFound
from mlflow_operator.kube.events import Events
from mlflow_operator.kube.leader_election import LeaderElector
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.model.versions import Images
from mlflow_operator.platforms import reconcile as platforms
from mlflow_operator.platforms.checks import CHECK_INTERVAL_SECONDS, Checks
from mlflow_operator.reconciler import reconcile
from mlflow_operator.runtime import health, watch, watch_check
from mlflow_operator.runtime.logging import resource_context
from mlflow_operator.runtime.platform_users import PlatformUsers
from mlflow_operator.runtime.workqueue import MAX_IN_FLIGHT, WorkQueue
from mlflow_operator.runtime.workqueue_schedule import JITTER, Schedule
from mlflow_operator.status.metrics import Metrics

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_DNS_THREADS = 256
"""Threads for DNS lookups, created on demand. If an external DNS server does not answer, each lookup of its names
occupies a thread for most of a minute, several times as long as the call that needs it: the limits of one namespace
allow it a hundred threads. Lookups of cluster names would wait for the six threads that are Python's default on two
cores."""

_TLS_BUFFER_BYTES = 64 * 1024
"""Size of asyncio's read buffer for each open TLS connection. The default is 256 KiB, and the operator has about 25
connections to the API server: one for each watched kind and a dozen for requests. Most reads are much smaller."""

_PLATFORM_WORKERS = 2
"""Number of worker slots for platforms. They have a queue of their own, so that they never take those of servers."""

_PLATFORM_RESYNC_SECONDS = CHECK_INTERVAL_SECONDS / (1 - JITTER)
"""Each resync of a platform is late enough for another check of its stores."""


@dataclass(frozen=True)
class Settings:
    """Settings of the operator process; see the options of `mlflow-operator run`.

    `namespaces`: namespaces to watch, all if empty. `port`: serves health checks and metrics.
    """

    namespaces: tuple[str, ...]
    images: Images
    cluster_domain: str
    lease_namespace: str
    lease_name: str
    port: int


@dataclass
class _ReadinessMetric(Generic[K]):
    """Updates a metric that counts resources by the status of their Ready condition. `set_counts` sets it."""

    set_counts: Callable[[Mapping[str, int]], None]
    ready_by_key: dict[K, str] = field(default_factory=dict)

    def record(self, key: K, ready: str | None) -> None:
        if ready is None:
            self.ready_by_key.pop(key, None)
        else:
            self.ready_by_key[key] = ready
        self.set_counts(Counter(self.ready_by_key.values()))


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT, then release the Lease and return.

    Raises LeaseLost if another replica may be the leader: the process must exit at once. Raises WatchLost, after the
    Lease has been released, if the process should restart.
    """
    metrics = Metrics()
    sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_DNS_THREADS, "lookup"))
    cluster = await KubernetesClient.connect(metrics)
    # A separate client, so that Lease renewals do not queue behind requests that a slow API server does not answer.
    lease_client = await KubernetesClient.connect(metrics)
    # Random, so that a container restarted in the same pod is not mistaken for the previous leader.
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    election = LeaderElector(
        lease_client,
        metrics,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=identity,
    )
    stores, sessions, requests = ObjectStores(), Sessions(), SignedRequests()
    main_task = asyncio.current_task()
    if main_task is not None:
        # For a standby replica. kopf installs its own signal handlers when the leader starts to watch.
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, main_task.cancel)
    watchdog = health.EventLoopWatchdog()
    watchdog_task = asyncio.create_task(watchdog.tick(), name="event loop watchdog")
    # A standby replica is ready, too: otherwise a rolling update of the operator would never finish.
    app = health.application(metrics, is_alive=watchdog.check, is_ready=watchdog.check)
    try:
        async with health.serving(app, settings.port):
            deps = Dependencies(
                cluster=cluster,
                applier=Applier(cluster),
                postgres=Postgres(sessions),
                postgres_admin=PostgresAdmin(sessions),
                postgres_roles=PostgresRoles(sessions),
                stores=stores,
                minio_admin=MinioAdmin(requests),
                seaweedfs_admin=SeaweedFSAdmin(requests),
                resolver=Resolver(),
                ca_files=CAFiles(),
                events=Events(cluster, identity),
                metrics=metrics,
                images=settings.images,
                cluster_domain=settings.cluster_domain,
                now=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                generate_password=generate_password,
            )
            with lease_guard.guard_lease(election.expires_at):
                await election.run(lambda: _lead(deps, settings))
    except asyncio.CancelledError:
        logger.info("received a stop signal")
    except watch.WatchLost as error:
        logger.warning("lost the watches; exiting to restart: %s", error)
        raise
    finally:
        watchdog_task.cancel()
        stores.close()
        await cluster.close()
        await lease_client.close()


@dataclass
class _Dispatcher:
    """Adds the keys of the watches to the queues.

    `seen`: keys that had an event. `deleted_servers`: last states that have no Event yet. `forget_platforms` is called
    for each event of a platform, before the servers that use it are reconciled.
    """

    servers: WorkQueue[NamespacedName]
    platforms: WorkQueue[str]
    users: PlatformUsers
    deleted_servers: dict[NamespacedName, Object]
    forget_platforms: Callable[[], None]
    seen: set[NamespacedName] = field(default_factory=set)

    def enqueue(self, key: NamespacedName) -> None:
        namespace, name = key
        if namespace:
            self.servers.add(key)
        else:
            self.platforms.add(name)

    def on_seen(self, key: NamespacedName, metadata: Mapping[str, Any]) -> None:
        self.seen.add(key)
        namespace, name = key
        if not namespace:
            self.forget_platforms()
            self._enqueue_all(self.users.changed(name, metadata))

    def on_deleted(self, key: NamespacedName, last_state: Object) -> None:
        self.seen.discard(key)
        namespace, name = key
        if namespace:
            self.deleted_servers[key] = last_state
        else:
            self.forget_platforms()
            self._enqueue_all(self.users.deleted(name))

    def _enqueue_all(self, servers: Iterable[NamespacedName]) -> None:
        for server in servers:
            self.servers.add(server)


async def _lead(deps: Dependencies, settings: Settings) -> None:
    deleted_servers: dict[NamespacedName, Object] = {}
    users = PlatformUsers()
    server_queue = _server_queue(deps, deleted_servers, users)
    platform_queue = _platform_queue(deps, settings)
    dispatcher = _Dispatcher(
        server_queue, platform_queue, users, deleted_servers, lambda: platform_choice.forget_platforms(deps)
    )
    # On exit, kopf cancels every task that started after it. These tasks must start before kopf.
    before_kopf = (
        asyncio.create_task(server_queue.run(), name="queue"),
        asyncio.create_task(platform_queue.run(), name="platform queue"),
        asyncio.create_task(
            watch_check.verify(lambda: _list_resources(deps.cluster, settings.namespaces), dispatcher.seen),
            name="watch check",
        ),
    )
    await asyncio.sleep(0)
    watch_task = asyncio.create_task(
        watch.run(dispatcher.enqueue, dispatcher.on_seen, dispatcher.on_deleted, settings.namespaces),
        name="watch",
    )
    tasks = (*before_kopf, watch_task)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _server_queue(
    deps: Dependencies, deleted_servers: dict[NamespacedName, Object], users: PlatformUsers
) -> WorkQueue[NamespacedName]:
    """The work queue of MLflowServers. `deleted_servers`: last states that have no Event yet."""
    readiness = _ReadinessMetric[NamespacedName](deps.metrics.set_servers_by_ready)

    async def handle(key: NamespacedName) -> float | None:
        with resource_context(*key), limits.on_behalf_of(key[0]):
            try:
                last_state = deleted_servers.get(key)
                if last_state:
                    await retained_event.emit_retained_event(last_state, deps)
                    # The server may have been recreated and deleted again meanwhile.
                    if deleted_servers.get(key) is last_state:
                        del deleted_servers[key]
                result = await reconcile(key, deps)
            except NamespaceTerminating:
                # The API server accepts no new objects there, and deletes the existing ones.
                result = ReconcileResult(None)
        readiness.record(key, result.ready)
        users.record(key, result.platforms if result.ready else ())
        if result.ready is None:
            queue.forget(key)
        return result.requeue_after

    queue: WorkQueue[NamespacedName] = WorkQueue(
        handle, deps.metrics, schedule=Schedule(group_of=operator.itemgetter(0), max_taken=MAX_IN_FLIGHT)
    )
    return queue


def _platform_queue(deps: Dependencies, settings: Settings) -> WorkQueue[str]:
    """The work queue of MLflowPlatforms, by their names."""
    checks = Checks()
    readiness = _ReadinessMetric[str](deps.metrics.set_platforms_by_ready)

    async def handle(name: str) -> float | None:
        # The calls to the stores of each platform count against limits of their own.
        with resource_context("", name), limits.on_behalf_of(f"{kinds.MLFLOWPLATFORM.plural}/{name}"):
            result = await platforms.reconcile(name, deps, checks, settings.namespaces)
        readiness.record(name, result.ready)
        if result.ready is None:
            queue.forget(name)
        return result.requeue_after

    queue: WorkQueue[str] = WorkQueue(
        handle,
        deps.metrics,
        workers=_PLATFORM_WORKERS,
        schedule=Schedule(resync=_PLATFORM_RESYNC_SECONDS),
        kind=kinds.MLFLOWPLATFORM.kind,
    )
    return queue


async def _list_resources(cluster: KubernetesClient, namespaces: tuple[str, ...]) -> set[NamespacedName]:
    """The keys of all MLflowServers in the watched namespaces, and of all MLflowPlatforms."""
    keys: set[NamespacedName] = set()
    for namespace in namespaces or (None,):
        keys |= await cluster.list_names(kinds.MLFLOWSERVER, namespace)
    try:
        return keys | await cluster.list_names(kinds.MLFLOWPLATFORM)
    except (Forbidden, NotFound):
        # Without the CRD or the permission, which an upgrade may have omitted, servers are still checked.
        return keys
