"""Watching: every event of a resource, or of anything it owns, puts the resource's key into the queue.

kopf lists, watches, reconnects and renews credentials. Only its `on.event` is used: any other handler would add
annotations, finalizers and patches of kopf's own to the objects.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import kopf

from mlflow_operator.framework.observe import OWNED
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.errors import MAX_MESSAGE_CHARS
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import NamespacedName, Object

INACTIVITY_TIMEOUT_SECONDS = 70.0
"""Seconds without a word after which a watch is taken for dead and begun anew. The API server speaks at least once a
minute (a bookmark), so only a connection that died without a sign, as behind a firewall that forgot it, says nothing
for longer. Servers that are known are looked at once a minute anyway; this is for those that are new."""


_HEAD = {"apiVersion": kinds.MLFLOWSERVER.api_version, "kind": kinds.MLFLOWSERVER.kind}


class WatchLost(Exception):  # noqa: N818
    """The API server answers, but not as watching needs it. The process should end, and begin anew."""


class _Patience:
    """Seconds between tries of one request: growing, and without an end.

    kopf would give up after a minute and take the process with it, as often as the API server is away for longer.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 1.0, 2.0, 3.0, 5.0), itertools.repeat(8.0))


def registry(
    add: Callable[[NamespacedName], None],
    exists: Callable[[NamespacedName], None],
    gone: Callable[[NamespacedName, Object], None],
) -> kopf.OperatorRegistry:
    """Handlers that call `add` with the key of the server that an event concerns.

    `exists` is called first for an event of the server itself, or `gone` if the server was deleted, with its last
    state, which cannot be read any more.
    """
    handlers = kopf.OperatorRegistry()

    async def resource(event: Mapping[str, Any], namespace: str | None, name: str | None, **_: Any) -> None:
        key = (namespace or "", name or "")
        if event.get("type") == "DELETED":
            gone(key, {**_HEAD, **event["object"]})
        else:
            exists(key)
        add(key)

    async def owned(namespace: str | None, meta: Mapping[str, Any], **_: Any) -> None:
        server = server_of(meta)
        if server:
            add((namespace or "", server))

    def login(**context: Any) -> kopf.ConnectionInfo | None:
        # kopf's own choice would import a second, blocking client
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)

    kopf.on.login(registry=handlers)(login)
    kopf.on.event(*_selector(kinds.MLFLOWSERVER), registry=handlers)(resource)
    for kind in OWNED:
        kopf.on.event(*_selector(kind), registry=handlers, id=f"owned-{kind.plural}")(owned)
    return handlers


def server_of(meta: Mapping[str, Any]) -> str | None:
    """Name of the MLflowServer that an object belongs to, None if it belongs to none.

    The label is on every owned object, data included. Where somebody removed it, the ownerReference still names the
    server, so that the label is restored at once and not at the next resync.
    """
    labelled = (meta.get("labels") or {}).get(labels.SERVER)
    references = meta.get("ownerReferences") or ()
    owners = (one["name"] for one in references if one.get("kind") == kinds.MLFLOWSERVER.kind)
    return labelled or next(owners, None)


def settings(namespaces: Collection[str] = ()) -> kopf.OperatorSettings:
    """kopf without writes of its own, and with watches that the API server filters. `namespaces` empty: all."""
    chosen = kopf.OperatorSettings()
    # Roles in namespaces can't grant a look at namespaces and definitions, and kopf would ask for almost a minute
    # before it takes no for an answer and watches anything.
    chosen.scanning.disabled = bool(namespaces)
    chosen.posting.enabled = False
    chosen.networking.connect_timeout = 5
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = _Patience()
    chosen.watching.inactivity_timeout = INACTIVITY_TIMEOUT_SECONDS
    for kind in OWNED:
        chosen.watching.label_selectors[_selector(kind)] = labels.managed()
    return chosen


async def run(
    add: Callable[[NamespacedName], None],
    exists: Callable[[NamespacedName], None],
    gone: Callable[[NamespacedName, Object], None],
    namespaces: Collection[str],
) -> None:
    """Watches until the process is told to stop. `namespaces` empty: all of them. The callbacks are `registry`'s.

    Rides out an API server that is away or answers with 5xx, however long. WatchLost: it answers something that
    waiting does not mend, or kopf does not wait for, such as a refusal of a credential that was just renewed.
    """
    try:
        await kopf.operator(
            registry=registry(add, exists, gone),
            settings=settings(namespaces),
            # kopf would ask for the name of the user, and an arbitrary user id has none
            identity="mlflow-operator",  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not namespaces,
            namespaces=tuple(namespaces),
        )
    except Exception as error:
        if not isinstance(error, OSError | TimeoutError) and _origin(error) not in {"aiohttp", "kopf"}:
            raise
        raise WatchLost(f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS]) from error


def _origin(error: Exception) -> str:
    # kopf keeps its errors' classes to itself
    return type(error).__module__.partition(".")[0]


def _selector(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return (group, version, kind.plural)
