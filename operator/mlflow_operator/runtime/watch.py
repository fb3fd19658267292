"""Watches: every event of an MLflowServer, or of an object it owns, adds the server's key to the work queue.

kopf lists, watches, reconnects and renews credentials. The operator uses only its `on.event` handlers: all other
handlers make kopf add annotations, finalizers and patches of its own to the objects.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import aiohttp
import kopf

from mlflow_operator.framework.observe import OWNED
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import METADATA_OF_LIST, METADATA_OF_WATCH
from mlflow_operator.kube.errors import MAX_MESSAGE_CHARS
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import NamespacedName, Object

INACTIVITY_TIMEOUT_SECONDS = 70.0
"""Seconds without data after which a watch counts as dead and is restarted. The API server sends data at least once a
minute (a bookmark). Only a connection that was lost without a notice is silent for longer, for example if a firewall
has dropped its state. Known servers are reconciled once a minute anyway; this limit is for new servers."""

CHUNK_SIZE = 10
"""Objects per list request. Everyone can create objects with the operator's labels, with 1 MiB of metadata each, and
kopf keeps a whole response in memory, though not decoded."""

IDLE_TIMEOUT_SECONDS = 0.1
"""Seconds for which kopf keeps the last event of each object in memory."""

_OWNED_PLURALS = frozenset(kind.plural for kind in OWNED)

_ITEMS = '"items":['
"""Start of the objects in a list. A string in JSON cannot contain it, because quotes are escaped there."""

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
    on_seen: Callable[[NamespacedName], None],
    on_deleted: Callable[[NamespacedName, Object], None],
) -> kopf.OperatorRegistry:
    """Handlers that call `enqueue` with the key of the server that an event concerns.

    For an event of the server itself, they call `on_seen` first, or, if the server was deleted, `on_deleted` with its
    last state, which can no longer be read from the API server.
    """
    handlers = kopf.OperatorRegistry()

    async def resource(event: Mapping[str, Any], namespace: str | None, name: str | None, **_: Any) -> None:
        key = (namespace or "", name or "")
        if event.get("type") == "DELETED":
            on_deleted(key, {**_TYPE_META, **event["object"]})
        else:
            on_seen(key)
        enqueue(key)

    async def owned(namespace: str | None, meta: Mapping[str, Any], **_: Any) -> None:
        server = server_name_of(meta)
        if server:
            enqueue((namespace or "", server))

    kopf.on.login(registry=handlers)(_Login().login)
    kopf.on.event(*_selector(kinds.MLFLOWSERVER), registry=handlers)(resource)
    for kind in OWNED:
        kopf.on.event(*_selector(kind), registry=handlers, id=f"owned-{kind.plural}")(owned)
    return handlers


class _Login:
    """Login handler that reads the credentials and returns a session like kopf's own, but for metadata only."""

    def __init__(self) -> None:
        self._latest: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    async def login(self, **context: Any) -> kopf.AiohttpSession | None:
        info = await asyncio.to_thread(self._read, **context)
        if info is None:
            return None
        # kopf recognizes rejected credentials by the session. With a new session for the same ones, it would retry
        # without end and without a delay.
        if self._latest is None or self._latest[0] != info:
            self._latest = info, _session(info)
        return self._latest[1]

    def _read(self, **context: Any) -> kopf.ConnectionInfo | None:
        # kopf's default login would import a second, blocking Kubernetes client.
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)


def _session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    # kopf closes the session.
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        middlewares=(_MetadataOnly(),),
        response_class=_Response,
    )
    return kopf.AiohttpSession(
        aiohttp_session=session,
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
    )


class _MetadataOnly:
    """Middleware that requests only the metadata of owned objects. An MLflowServer is read whole, for its last state.

    It reads their lists one after the other, so that only one page at a time is in memory.
    """

    def __init__(self) -> None:
        self._reading = asyncio.Lock()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if request.url.name not in _OWNED_PLURALS:
            return await handler(request)
        if "watch" in request.url.query:
            request.headers["Accept"] = METADATA_OF_WATCH
            return await handler(request)
        request.headers["Accept"] = METADATA_OF_LIST
        response = await handler(request)
        async with self._reading:
            await response.read()
        return response


class _Response(aiohttp.ClientResponse):
    """Response that decodes one object of a list after the other, and keeps of owned ones only what `owned` needs.

    Also the metadata of one object can have 1 MiB, for example of labels. Decoded, it needs fourteen times the memory.
    """

    async def json(self, **options: Any) -> Any:
        if self.url.name in _OWNED_PLURALS:
            options["loads"] = _decode_list
        return await super().json(**options)


def _decode_list(text: str) -> Any:
    """Decode a response to a list request: a list, or a Status."""
    start = text.find(_ITEMS) + len(_ITEMS)
    if start < len(_ITEMS):
        response = json.loads(text)
        # A list of metadata without objects has null here, for which kopf ends the watch.
        return {**response, "items": response.get("items") or []}
    items, decoder, position = [], json.JSONDecoder(), _end_of_gap(text, start)
    while text[position] != "]":
        item, position = decoder.raw_decode(text, position)
        items.append(_reduced(item))
        position = _end_of_gap(text, position)
    return {**json.loads(text[:start] + text[position:]), "items": items}


def _end_of_gap(text: str, position: int) -> int:
    """The position of the next object, or of the end of the list."""
    while text[position] in ", \n\r\t":
        position += 1
    return position


def _reduced(item: Object) -> Object:
    """What `server_name_of` and kopf need, with the server in the label also if only the ownerReference names it."""
    meta = item["metadata"]
    reduced = {key: meta[key] for key in ("namespace", "name", "uid", "resourceVersion") if key in meta}
    server = server_name_of(meta)
    return {"metadata": {**reduced, "labels": {labels.SERVER: server} if server else {}}}


def server_name_of(meta: Mapping[str, Any]) -> str | None:
    """Name of the MLflowServer that an object belongs to; None if it belongs to none.

    The label is on every owned object, data included. If a user has removed it, the ownerReference still names the
    server, so that the label is restored at once and not at the next resync.
    """
    name = (meta.get("labels") or {}).get(labels.SERVER)
    references = meta.get("ownerReferences") or ()
    owners = (owner["name"] for owner in references if owner.get("kind") == kinds.MLFLOWSERVER.kind)
    return name or next(owners, None)


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
    for kind in OWNED:
        kopf_settings.watching.label_selectors[_selector(kind)] = labels.managed_selector()
    return kopf_settings


async def run(
    enqueue: Callable[[NamespacedName], None],
    on_seen: Callable[[NamespacedName], None],
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
