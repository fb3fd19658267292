"""The HTTP session of the watches: credentials, and responses with no more than the handlers of `watch` need.

Everyone can create objects with the operator's labels, with up to 1 MiB of contents and 1 MiB of metadata each. Decoded
labels need up to fourteen times the memory of their text, and kopf holds many objects at a time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import aiohttp
import kopf

from mlflow_operator.framework.observe import LISTED
from mlflow_operator.kube import finalizer, kinds, labels
from mlflow_operator.kube.client import METADATA_OF_LIST, METADATA_OF_WATCH
from mlflow_operator.kube.objects import Object

_LISTED_PLURALS = frozenset(kind.plural for kind in LISTED)
_PLURALS = _LISTED_PLURALS | {kinds.MLFLOWSERVER.plural}

_ITEMS = '"items":['
"""Start of the objects in a list. A string in JSON cannot contain it, because quotes are escaped there."""

_METADATA = ("namespace", "name", "uid", "resourceVersion")
"""What kopf and the handlers read of every object."""


class Login:
    """Login handler that reads the credentials and returns a session like kopf's own, but for reduced responses."""

    def __init__(self) -> None:
        self._latest: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    async def login(self, **context: Any) -> kopf.AiohttpSession | None:
        """Return the session for the current credentials; None if there are none."""
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


def server_name_of(meta: Mapping[str, Any]) -> str | None:
    """Name of the MLflowServer that an object belongs to; None if it belongs to none.

    The label is on every owned object, data included. If a user has removed it, the ownerReference still names the
    server, so that the label is restored at once and not at the next resync.
    """
    name = (meta.get("labels") or {}).get(labels.SERVER)
    references = meta.get("ownerReferences") or ()
    owners = (owner["name"] for owner in references if owner.get("kind") == kinds.MLFLOWSERVER.kind)
    return name or next(owners, None)


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
    """Middleware that requests only the metadata of objects, and reads one page of a list at a time.

    Only the watch of MLflowServers gets whole objects, because an event must contain the status of a deleted server.
    """

    def __init__(self) -> None:
        self._reading = asyncio.Lock()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        plural, is_watch = request.url.name, "watch" in request.url.query
        if plural not in _PLURALS or (is_watch and plural not in _LISTED_PLURALS):
            return await handler(request)
        request.headers["Accept"] = METADATA_OF_WATCH if is_watch else METADATA_OF_LIST
        response = await handler(request)
        if not is_watch:
            async with self._reading:
                await response.read()
        return response


class _Response(aiohttp.ClientResponse):
    """Response that decodes one object after the other and keeps what `_reduced` returns."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Receive the headers."""
        await super().start(connection)
        if self.ok and self.url.name in _PLURALS and "watch" in self.url.query:
            self.content = cast("aiohttp.StreamReader", _ReducedEvents(self.content))
        return self

    async def json(self, **options: Any) -> Any:
        """Decode the body."""
        if self.url.name in _PLURALS:
            options["loads"] = _decode_list
        return await super().json(**options)


class _ReducedEvents:
    """Body of a watch, with what `_reduced` returns of each object. Otherwise like the `content` that it reads."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Read at most `size` bytes at a time, and yield one event after the other."""
        incomplete = b""
        async for data in self._content.iter_chunked(size):
            *lines, incomplete = (incomplete + data).split(b"\n")
            for line in lines:
                if line:
                    yield _reduced_event(line)
        if incomplete:
            yield _reduced_event(incomplete)


def _reduced_event(line: bytes) -> bytes:
    event = json.loads(line)
    # The object of an error is a Status.
    if event["type"] != "ERROR":
        is_deleted_server = (
            event["type"] == "DELETED" and event["object"].get("kind") == kinds.MLFLOWSERVER.kind
        )
        status = {"status": event["object"].get("status") or {}} if is_deleted_server else {}
        event["object"] = {**_reduced(event["object"]), **status}
    return json.dumps(event).encode() + b"\n"


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
    """What kopf and the handlers need, with the server in the label also if only the ownerReference names it."""
    meta = item["metadata"]
    reduced = {key: meta[key] for key in _METADATA if key in meta}
    server = server_name_of(meta)
    return {
        "metadata": {
            **reduced,
            "labels": {labels.SERVER: server} if server else {},
            "finalizers": [labels.FINALIZER] if finalizer.is_present(item) else [],
        }
    }
