"""Watches: every event of an MLflowServer, or of an object it owns, adds the server's key to the work queue. So does
every event of an MLflowPlatform, whose key has an empty namespace.

Secrets are not watched: this needs a permission with which all Secrets can be read.

kopf lists, watches, reconnects and renews credentials. The operator uses only its `on.event` handlers: all other
handlers make kopf add annotations, finalizers and patches of its own to the objects.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import kopf

from mlflow_operator.framework.observe import LISTED
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.errors import MAX_MESSAGE_CHARS
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.runtime.watch_session import Login, server_name_of

INACTIVITY_TIMEOUT_SECONDS = 70.0
"""Seconds without data after which a watch counts as dead and is restarted. The API server sends data at least once a
minute (a bookmark). Only a connection that was lost without a notice is silent for longer, for example if a firewall
has dropped its state. Known servers are reconciled once a minute anyway; this limit is for new servers."""

CHUNK_SIZE = 10
"""Objects per list request. Everyone can create objects with the operator's labels, with 1 MiB of metadata each, and
kopf keeps a whole response in memory, though not decoded."""

IDLE_TIMEOUT_SECONDS = 0.1
"""Seconds for which kopf keeps the last event of each object in memory."""

_TYPE_META = {"apiVersion": kinds.MLFLOWSERVER.api_version, "kind": kinds.MLFLOWSERVER.kind}


class WatchLost(Exception):  # noqa: N818
    """The API server answers, but the watches cannot continue. The process should exit and restart."""


class _RetryDelays:
    """Endless, growing delays between the attempts of one request, in seconds.

    With kopf's own delays, the process would exit each time the API server is unavailable for more than a minute.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 1.0, 2.0, 3.0, 5.0), itertools.repeat(8.0))


def registry(
    enqueue: Callable[[NamespacedName], None],
    on_seen: Callable[[NamespacedName, Mapping[str, Any]], None],
    on_deleted: Callable[[NamespacedName, Object], None],
) -> kopf.OperatorRegistry:
    """Handlers that call `enqueue` with the key of the server or platform that an event concerns.

    For an event of the resource itself, they call `on_seen` with its metadata first, or, if it was deleted,
    `on_deleted` with its last metadata and status, which can no longer be read from the API server. The namespace of a
    platform is empty. The metadata of a server are incomplete.
    """
    handlers = kopf.OperatorRegistry()

    async def resource(event: Mapping[str, Any], namespace: str | None, name: str | None, **_: Any) -> None:
        key = (namespace or "", name or "")
        if event.get("type") == "DELETED":
            on_deleted(key, {**_TYPE_META, **event["object"]})
        else:
            on_seen(key, event["object"]["metadata"])
        enqueue(key)

    async def owned(namespace: str | None, meta: Mapping[str, Any], **_: Any) -> None:
        server = server_name_of(meta)
        if server:
            enqueue((namespace or "", server))

    kopf.on.login(registry=handlers)(Login().login)
    for kind in (kinds.MLFLOWSERVER, kinds.MLFLOWPLATFORM):
        kopf.on.event(*_selector(kind), registry=handlers, id=kind.plural)(resource)
    for kind in LISTED:
        kopf.on.event(*_selector(kind), registry=handlers, id=f"owned-{kind.plural}")(owned)
    return handlers


def settings(
    namespaces: Collection[str] = (), inactivity_timeout_seconds: float = INACTIVITY_TIMEOUT_SECONDS
) -> kopf.OperatorSettings:
    """kopf settings: no writes by kopf, and watches with label selectors. `namespaces` empty: all namespaces."""
    kopf_settings = kopf.OperatorSettings()
    # A Role cannot grant access to namespaces and CRDs, which are cluster-scoped. kopf would retry the forbidden
    # requests for almost a minute before it starts to watch.
    kopf_settings.scanning.disabled = bool(namespaces)
    kopf_settings.posting.enabled = False
    kopf_settings.networking.connect_timeout = 5
    kopf_settings.networking.request_timeout = 30
    kopf_settings.networking.error_backoffs = _RetryDelays()
    kopf_settings.watching.inactivity_timeout = inactivity_timeout_seconds
    kopf_settings.watching.chunk_size = CHUNK_SIZE
    kopf_settings.queueing.idle_timeout = IDLE_TIMEOUT_SECONDS
    for kind in LISTED:
        kopf_settings.watching.label_selectors[_selector(kind)] = labels.managed_selector()
    return kopf_settings


async def run(
    enqueue: Callable[[NamespacedName], None],
    on_seen: Callable[[NamespacedName, Mapping[str, Any]], None],
    on_deleted: Callable[[NamespacedName, Object], None],
    namespaces: Collection[str],
    inactivity_timeout_seconds: float = INACTIVITY_TIMEOUT_SECONDS,
) -> None:
    """Watch until the process receives a stop signal. `namespaces` empty: all. The callbacks are those of `registry`.

    Retries without limit while the API server is unavailable or answers with 5xx. Raises WatchLost for errors that a
    retry does not solve, or that kopf does not retry, such as a rejected credential that was just renewed.
    """
    try:
        await kopf.operator(
            registry=registry(enqueue, on_seen, on_deleted),
            settings=settings(namespaces, inactivity_timeout_seconds),
            # By default, kopf looks up the name of the user, which does not exist for an arbitrary user id.
            identity=cast("Any", "mlflow-operator"),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=tuple(namespaces),
        )
    except Exception as error:
        if not isinstance(error, OSError | TimeoutError) and _package_of(error) not in {"aiohttp", "kopf"}:
            raise
        raise WatchLost(f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS]) from error


def _package_of(error: Exception) -> str:
    # kopf does not export its exception classes.
    return type(error).__module__.partition(".")[0]


def _selector(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return (group, version, kind.plural)
