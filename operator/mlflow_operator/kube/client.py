"""Client for the Kubernetes API server: a few verbs on plain dicts, each with a timeout.

It uses only the transport of the official client (TLS, credentials and their renewal). The models of the official
client drop unknown fields, and its retries would bypass the backoff of the work queue.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Self

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from mlflow_operator.kube import kinds
from mlflow_operator.kube.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NamespaceTerminating,
    NotFound,
    QuotaExceeded,
    TooLarge,
    Unavailable,
    from_response,
)
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.status.metrics import Metrics

__all__ = [
    "FIELD_MANAGER",
    "AlreadyExists",
    "ClusterError",
    "Conflict",
    "Forbidden",
    "Invalid",
    "KubernetesClient",
    "NamespaceTerminating",
    "NotFound",
    "QuotaExceeded",
    "TooLarge",
    "Unavailable",
]

FIELD_MANAGER = "mlflow-operator"

REQUEST_TIMEOUT_SECONDS = 10.0
"""Limit for one request, including connecting and reading the response. The API server usually responds within
milliseconds; after ten seconds the worker must become free for another MLflowServer."""

MAX_CONNECTIONS = 12
"""Concurrent requests; further requests wait. The API server responds within milliseconds, so more connections make
nothing faster, but each one keeps 100 KiB or more of memory (the TLS read buffer). All workers together would open 70.
"""

PAGE_SIZE = 500
"""Objects per page of a list response."""

NAMES_PAGE_SIZE = 50
"""Objects per page of a response with metadata only. The annotations of one object can have 256 KiB."""

METADATA_OF_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Media type of a list without the contents of the objects, which can have 1 MiB each."""

METADATA_OF_WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Media type of watch events without the contents of the objects."""


class KubernetesClient:
    """Client that takes and returns plain dicts and raises the errors of `kube.errors`.

    Every method raises `Unavailable` if the API server does not respond within the timeout, and `Forbidden` if RBAC
    does not allow the request. The client never retries.
    """

    def __init__(
        self, client: ApiClient, metrics: Metrics, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds

    @classmethod
    async def connect(
        cls,
        metrics: Metrics,
        kubeconfig: str | None = None,
        context: str | None = None,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> Self:
        """Create a client from the service account of the pod, or from a kubeconfig.

        Without `kubeconfig` and `context`, a process in a cluster uses its service account, and any other process uses
        KUBECONFIG, which defaults to ~/.kube/config. In a cluster the token is read again every minute, because
        Kubernetes replaces it every hour. Each client has its own connections: a caller whose requests must not wait
        for those of others needs its own client.
        """
        configuration = Configuration()
        if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        configuration.retries = None
        configuration.connection_pool_maxsize = MAX_CONNECTIONS
        return cls(ApiClient(configuration), metrics, timeout_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(
        self, kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        """Get an object. Returns None if it does not exist, which includes names that no object can have.

        Raises TooLarge if it exceeds `limit`.
        """
        if not kinds.is_valid_name(name):
            return None
        try:
            return await self._request(
                "GET",
                kind.path(namespace, name),
                f"get {_describe(kind, namespace, name)}",
                kind,
                limit=limit,
            )
        except NotFound:
            return None

    async def list(  # noqa: PLR0913 - a selection has this many parts
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        *,
        limit: ReadLimit | None = None,
        names: Collection[str] | None = None,
    ) -> list[Object]:
        """List all objects of a kind, in one namespace or in all, that match a label and a field selector.

        Adds apiVersion and kind to each object, because the API server omits them in lists. Raises TooLarge if they
        exceed `limit`. Of each response, only the objects with these `names` are kept.
        """
        query: dict[str, str] = {"limit": str(PAGE_SIZE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        type_meta = {"apiVersion": kind.api_version, "kind": kind.kind}
        pages = self._pages(kind, namespace, query, limit=limit)
        return [
            {**type_meta, **item}
            async for page in pages
            for item in page
            if names is None or item["metadata"]["name"] in names
        ]

    async def list_names(self, kind: Kind, namespace: str | None = None) -> set[NamespacedName]:
        """List the namespaces and names of all objects of a kind. Objects of any number and size need little memory."""
        query = {"limit": str(NAMES_PAGE_SIZE)}
        pages = self._pages(kind, namespace, query, accept=METADATA_OF_LIST)
        return {
            (item["metadata"].get("namespace", ""), item["metadata"]["name"])
            async for page in pages
            for item in page
        }

    async def list_labels(self, kind: Kind) -> dict[str, dict[str, str]]:
        """List the labels of all objects of a cluster-scoped kind, by their names. Needs little memory."""
        pages = self._pages(kind, None, {"limit": str(NAMES_PAGE_SIZE)}, accept=METADATA_OF_LIST)
        return {
            item["metadata"]["name"]: item["metadata"].get("labels") or {}
            async for page in pages
            for item in page
        }

    async def list_creation_times(self, kind: Kind, namespace: str) -> dict[str, str]:
        """List the creation times of all objects of a kind in a namespace (RFC 3339), by their names. Needs little
        memory.
        """
        pages = self._pages(kind, namespace, {"limit": str(NAMES_PAGE_SIZE)}, accept=METADATA_OF_LIST)
        return {
            item["metadata"]["name"]: item["metadata"].get("creationTimestamp") or ""
            async for page in pages
            for item in page
        }

    async def _pages(
        self,
        kind: Kind,
        namespace: str | None,
        query: Mapping[str, str],
        *,
        accept: str = "application/json",
        limit: ReadLimit | None = None,
    ) -> AsyncIterator[Sequence[Object]]:
        """Yield the objects of each page of a list."""
        action, continue_token = f"list {kind.plural} in {namespace or 'all namespaces'}", ""
        while True:
            page_query = {**query, "continue": continue_token} if continue_token else query
            response = await self._request(
                "GET",
                kind.path(namespace),
                action,
                kind,
                query=page_query,
                accept=accept,
                limit=limit,
            )
            yield response.get("items") or []
            continue_token = (response.get("metadata") or {}).get("continue") or ""
            if not continue_token:
                return

    async def create(self, obj: Object) -> Object:
        """Create an object and return it as stored. Raises AlreadyExists if the name is in use."""
        kind, namespace, name = _kind_and_name(obj)
        self._count_write(kind, "create")
        return await self._request(
            "POST",
            kind.path(namespace),
            f"create {_describe(kind, namespace, name)}",
            kind,
            query={"fieldManager": FIELD_MANAGER},
            body=obj,
        )

    async def replace(self, obj: Object) -> Object:
        """Replace the object with the same resourceVersion. Raises Conflict if it changed in the meantime."""
        kind, namespace, name = _kind_and_name(obj)
        self._count_write(kind, "replace")
        return await self._request(
            "PUT",
            kind.path(namespace, name),
            f"replace {_describe(kind, namespace, name)}",
            kind,
            query={"fieldManager": FIELD_MANAGER},
            body=obj,
        )

    async def apply(self, obj: Object) -> Object:
        """Server-side apply: set the fields in `obj` and remove fields that the previous apply set and `obj` omits.

        Forces conflicts, so the operator takes over fields of other managers. Creates the object if it does not exist.
        With `metadata.uid` in `obj`, raises Conflict if another object has taken the name.
        """
        return await self._apply(obj, None)

    async def apply_new(self, obj: Object) -> Object:
        """Create an object by server-side apply. Raises AlreadyExists if the name is in use, and changes nothing then.

        Unlike after `create`, later applies also remove fields. The API server compares the resourceVersion with that
        of an existing object, whose lowest value is 2, and ignores it if there is none.
        """
        try:
            return await self._apply({**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}}, None)
        except Conflict as error:
            raise AlreadyExists(str(error)) from error

    async def apply_status(self, obj: Object) -> Object:
        """Server-side apply of the status subresource. Raises NotFound if the object does not exist."""
        return await self._apply(obj, "status")

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Object:
        """Apply a JSON patch. Raises Conflict if a `test` operation failed, which means that the object changed."""
        self._count_write(kind, "patch")
        try:
            return await self._request(
                "PATCH",
                kind.path(namespace, name),
                f"patch {_describe(kind, namespace, name)}",
                kind,
                query={"fieldManager": FIELD_MANAGER},
                body=[dict(operation) for operation in operations],
                content_type="application/json-patch+json",
            )
        except Invalid as error:
            # The API server does not report that a test operation failed, but only then its response names no field.
            if any(operation.get("op") == "test" for operation in operations) and not error.fields:
                raise Conflict(str(error)) from error
            raise

    async def delete(self, obj: Object) -> None:
        """Delete the object with this uid, with background propagation.

        Succeeds if the object does not exist. Raises Conflict if another object has taken the name.
        """
        kind, namespace, name = _kind_and_name(obj)
        self._count_write(kind, "delete")
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": obj["metadata"]["uid"]},
        }
        path, action = kind.path(namespace, name), f"delete {_describe(kind, namespace, name)}"
        try:
            await self._request("DELETE", path, action, kind, body=options)
        except NotFound:
            return

    async def _apply(self, obj: Object, subresource: str | None) -> Object:
        kind, namespace, name = _kind_and_name(obj)
        self._count_write(kind, "apply_status" if subresource else "apply")
        try:
            return await self._request(
                "PATCH",
                kind.path(namespace, name, subresource),
                f"apply {_describe(kind, namespace, name)}{' ' + subresource if subresource else ''}",
                kind,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=_encode_for_apply(obj),
                # Without the charset the client would encode the body as ASCII.
                content_type="application/apply-patch+yaml; charset=utf-8",
            )
        except Invalid as error:
            if "metadata.uid" in error.fields:
                raise Conflict(str(error)) from error
            raise

    def _count_write(self, kind: Kind, verb: str) -> None:
        self._metrics.api_writes.labels(kind=kind.kind, verb=verb).inc()

    async def _request(  # noqa: PLR0913 - a request has this many parts
        self,
        method: str,
        path: str,
        action: str,
        kind: Kind,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        limit: ReadLimit | None = None,
    ) -> Object:
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, url, sent_headers, sent_body, _ = await self._client.param_serialize(
                    method,
                    path,
                    query_params=[*(query or {}).items()],
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                # The default timeout is five minutes, and aiohttp does not take an int as the total timeout.
                timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
                response = await self._client.call_api(
                    method, url, sent_headers, sent_body, _request_timeout=timeout
                )
                response_body = await _read(response.response, action, limit)
        except TimeoutError as error:
            raise Unavailable(f"{action}: no response within {self._timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"{action}: cannot connect to the API server ({type(error).__name__})"
            ) from error
        if response.status >= 400:
            secret = kind == kinds.SECRET
            raise from_response(
                response.status, response.headers.get("Retry-After"), response_body, action, secret=secret
            )
        try:
            decoded: Object = json.loads(response_body)
        except ValueError as error:
            raise Unavailable(
                f"{action}: the response is not JSON; check for a proxy in front of the API server"
            ) from error
        return decoded


async def _read(response: aiohttp.ClientResponse, action: str, limit: ReadLimit | None) -> bytes:
    if limit is None:
        return await response.read()
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > limit.remaining:
            response.close()
            raise TooLarge(f"{action}: the response is too large")
    limit.take(body, action)
    return bytes(body)


_MUST_ESCAPE = re.compile("[\x7f-\uffff]")


def _encode_for_apply(obj: Object) -> bytes:
    r"""Encode an object as JSON that is also correct YAML, because the API server parses an apply body as YAML.

    ASCII-only JSON writes a character above U+FFFF as a surrogate pair of two escapes, which YAML does not support.
    Unescaped, some other non-ASCII characters are line breaks in YAML or are not allowed in it. Therefore characters
    above U+FFFF stay as they are, and the range from \x7f to \uffff is escaped.
    """
    text = json.dumps(obj, ensure_ascii=False)
    return _MUST_ESCAPE.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def _kind_and_name(obj: Object) -> tuple[Kind, str | None, str]:
    metadata = obj["metadata"]
    # An Event may have only a generateName.
    return kinds.of(obj), metadata.get("namespace"), metadata.get("name", metadata.get("generateName", ""))


def _describe(kind: Kind, namespace: str | None, name: str) -> str:
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"
