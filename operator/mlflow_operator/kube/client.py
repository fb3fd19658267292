"""The API server, as the operator speaks to it: a few verbs on plain dicts, each with a time-out.

Built on the official client's transport (TLS, credentials and their renewal) and nothing above it: its models
drop fields that they don't know, and its retries hide what the queue should decide.
"""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
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
    Unavailable,
    from_response,
)
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
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
    "Unavailable",
]

FIELD_MANAGER = "mlflow-operator"

TIMEOUT = 10.0
"""Seconds for one request in all, connecting and reading included. The API server answers in milliseconds;
after ten seconds it is better to give the worker to another MLflowServer."""

CONNECTIONS = 12
"""Requests at a time; more wait for their turn. The API server answers in milliseconds, so more make nothing faster,
but each connection keeps some 100 KiB or more (what TLS reads into), and all workers together would ask for 70."""

PAGE = 500
"""Objects per answer of a list."""


class KubernetesClient:
    """A thin client. Objects go in and come out as plain dicts; errors are those of `errors`.

    Every method raises `Unavailable` when there is no answer within the time-out and `Forbidden` when the
    operator's role does not allow it. Nothing is retried here.
    """

    def __init__(self, client: ApiClient, metrics: Metrics, seconds: float = TIMEOUT) -> None:
        self._client = client
        self._metrics = metrics
        self._seconds = seconds

    @classmethod
    async def connect(
        cls,
        metrics: Metrics,
        kubeconfig: str | None = None,
        context: str | None = None,
        seconds: float = TIMEOUT,
    ) -> Self:
        """A client for the cluster this process runs in, or, given `kubeconfig` or outside of any, of a file.

        It waits in line for connections of its own only: what must be in time takes a client to itself.
        In the cluster the service account's token is read again every minute, for it is replaced every hour.
        `kubeconfig` absent outside a cluster: KUBECONFIG, else ~/.kube/config.
        """
        settings = Configuration()
        if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=settings)
        else:
            await config.load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=settings, persist_config=False
            )
        settings.retries = None
        settings.connection_pool_maxsize = CONNECTIONS
        return cls(ApiClient(settings), metrics, seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object as it is, or None if there is none."""
        try:
            return await self._request(
                "GET", kind.path(namespace, name), f"get {_named(kind, namespace, name)}", kind
            )
        except NotFound:
            return None

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects of a kind, in one namespace or in all, that match a label and a field selector.

        Each carries its apiVersion and kind, which the API server leaves out of lists.
        """
        query: dict[str, str] = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        doing = f"list {kind.plural} in {namespace or 'all namespaces'}"
        found: list[Object] = []
        while True:
            answer = await self._request("GET", kind.path(namespace), doing, kind, query=query)
            head = {"apiVersion": kind.api_version, "kind": kind.kind}
            found += [{**head, **item} for item in answer.get("items") or ()]
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    async def create(self, obj: Object) -> Object:
        """Make an object anew and return it as it is then. AlreadyExists: there is one of that name."""
        kind, namespace, name = _address(obj)
        self._count(kind, "create")
        return await self._request(
            "POST",
            kind.path(namespace),
            f"create {_named(kind, namespace, name)}",
            kind,
            query={"fieldManager": FIELD_MANAGER},
            body=obj,
        )

    async def replace(self, obj: Object) -> Object:
        """Put an object in the place of the one with its resourceVersion. Conflict: that one has changed."""
        kind, namespace, name = _address(obj)
        self._count(kind, "replace")
        return await self._request(
            "PUT",
            kind.path(namespace, name),
            f"replace {_named(kind, namespace, name)}",
            kind,
            query={"fieldManager": FIELD_MANAGER},
            body=obj,
        )

    async def apply(self, obj: Object) -> Object:
        """Server-side apply: what `obj` says becomes so, what it said last time and says no more goes.

        Fields that others set are taken over. Makes the object if there is none. With `metadata.uid` in
        `obj`, Conflict if another object took the name since.
        """
        return await self._apply(obj, None)

    async def apply_status(self, obj: Object) -> Object:
        """Server-side apply of the status alone. NotFound: there is no such object (any more)."""
        return await self._apply(obj, "status")

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, steps: Sequence[Mapping[str, Any]]
    ) -> Object:
        """Carry out a JSON patch. Conflict: a `test` step failed, so the object is not what it was."""
        self._count(kind, "patch")
        try:
            return await self._request(
                "PATCH",
                kind.path(namespace, name),
                f"patch {_named(kind, namespace, name)}",
                kind,
                query={"fieldManager": FIELD_MANAGER},
                body=[dict(step) for step in steps],
                content_type="application/json-patch+json",
            )
        except Invalid as error:
            # The API server does not say that it was the test that failed; but then it names no field.
            if any(step.get("op") == "test" for step in steps) and not error.fields:
                raise Conflict(str(error)) from error
            raise

    async def delete(self, obj: Object) -> None:
        """Delete exactly this object, by its uid, and in the background what depends on it.

        One that is already gone is as good. Conflict: another object has taken its name.
        """
        kind, namespace, name = _address(obj)
        self._count(kind, "delete")
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": obj["metadata"]["uid"]},
        }
        path, doing = kind.path(namespace, name), f"delete {_named(kind, namespace, name)}"
        try:
            await self._request("DELETE", path, doing, kind, body=options)
        except NotFound:
            return

    async def _apply(self, obj: Object, subresource: str | None) -> Object:
        kind, namespace, name = _address(obj)
        self._count(kind, "apply_status" if subresource else "apply")
        try:
            return await self._request(
                "PATCH",
                kind.path(namespace, name, subresource),
                f"apply {_named(kind, namespace, name)}{' ' + subresource if subresource else ''}",
                kind,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=_as_yaml(obj),
                # the client would make ASCII of a body of the bare type
                content_type="application/apply-patch+yaml; charset=utf-8",
            )
        except Invalid as error:
            if "metadata.uid" in error.fields:
                raise Conflict(str(error)) from error
            raise

    def _count(self, kind: Kind, verb: str) -> None:
        self._metrics.api_writes.labels(kind=kind.kind, verb=verb).inc()

    async def _request(  # noqa: PLR0913 - a request has that many parts
        self,
        method: str,
        path: str,
        doing: str,
        kind: Kind,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            async with asyncio.timeout(self._seconds):
                _, url, sent_headers, sent_body, _ = await self._client.param_serialize(
                    method,
                    path,
                    query_params=[*(query or {}).items()],
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                # Its own time-out would be five minutes, and an int is taken for something else by aiohttp.
                limit = aiohttp.ClientTimeout(total=self._seconds)
                answer = await self._client.call_api(
                    method, url, sent_headers, sent_body, _request_timeout=limit
                )
                text: bytes = await answer.read()
        except TimeoutError as error:
            raise Unavailable(f"{doing}: no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{doing}: no connection to the API server ({type(error).__name__})") from error
        if answer.status >= 400:
            secret = kind == kinds.SECRET
            raise from_response(answer.status, answer.headers.get("Retry-After"), text, doing, secret=secret)
        try:
            decoded: Object = json.loads(text)
        except ValueError as error:
            raise Unavailable(f"{doing}: the answer is no JSON; is there a proxy in between?") from error
        return decoded


_ESCAPED = re.compile("[\x7f-\uffff]")


def _as_yaml(obj: Object) -> bytes:
    """JSON that the API server, which reads what is applied as YAML, reads as it is meant.

    JSON's ASCII writes a smiley as two escapes, which YAML does not know, and what it writes plainly may be a line
    break or forbidden to YAML: so characters beyond 16 bits stand as they are, and all others beyond ASCII escaped.
    """
    plain = json.dumps(obj, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", plain).encode()


def _address(obj: Object) -> tuple[Kind, str | None, str]:
    metadata = obj["metadata"]
    # Events may leave the name to the API server.
    return kinds.of(obj), metadata.get("namespace"), metadata.get("name", metadata.get("generateName", ""))


def _named(kind: Kind, namespace: str | None, name: str) -> str:
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"
