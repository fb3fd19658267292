"""The client against a web server that responds like the API server, including its failures."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import MAX_CONNECTIONS, KubernetesClient
from mlflow_operator.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
)
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit, max_memory
from mlflow_operator.status.metrics import Metrics
from tests.unit.kubeconfig import write_kubeconfig
from tests.unit.web_server import Handler, serve_all

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns", "uid": "u"}}


def status(code: int, reason: str, **details: Any) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": "", "details": details}
    return web.json_response(body, status=code)


@dataclass
class Server:
    """Web server that records requests and returns the configured response."""

    requests: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    respond: Handler | None = None
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        if self.respond is not None:
            return await self.respond(request)
        return web.json_response(CONFIG)

    @property
    def last(self) -> web.Request:
        return self.requests[-1]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serve_all(server.handle) as url:
        server.port = urlsplit(url).port or 0
        yield server


@pytest.fixture
async def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def cluster(server: Server, metrics: Metrics, tmp_path: Path) -> AsyncIterator[KubernetesClient]:
    cluster = await KubernetesClient.connect(
        metrics, str(write_kubeconfig(tmp_path, server.port)), timeout_seconds=0.5
    )
    yield cluster
    await cluster.close()


def limit_of(obj: Object) -> int:
    """The size with which a response with an object counts."""
    limit = ReadLimit(10_000)
    limit.take(json.dumps(obj).encode(), "get")
    return limit.used


def always(code: int, reason: str, **details: Any) -> Handler:
    async def respond(_: web.Request) -> web.StreamResponse:
        return status(code, reason, **details)

    return respond


async def test_get_returns_object_or_none(cluster: KubernetesClient, server: Server) -> None:
    assert await cluster.get(kinds.CONFIGMAP, "ns", "a") == CONFIG
    assert server.last.path == "/api/v1/namespaces/ns/configmaps/a"
    assert server.last.headers["Authorization"] == "Bearer the-token"
    server.respond = always(404, "NotFound")
    assert await cluster.get(kinds.CONFIGMAP, "ns", "b") is None


@pytest.mark.parametrize("name", ["../../kube-system/secrets/a", "..", "a?watch=true", "a#b", "a%2fb", ""])
async def test_invalid_name_reaches_no_other_object(
    cluster: KubernetesClient, server: Server, name: str
) -> None:
    """Pods may reference such names: Kubernetes does not check them in `envFrom`, and users edit Deployments."""
    assert await cluster.get(kinds.SECRET, "ns", name) is None
    assert not server.requests


@pytest.mark.parametrize(
    "text",
    ["plain", "Grüße", "\U0001f600", "\x7f\x85\u2028\ufeff\uffff", 'a "quoted" \\ud83d\\ude00', "\t\n\x00"],
)
async def test_apply_body_preserves_every_character(
    cluster: KubernetesClient, server: Server, text: str
) -> None:
    """The API server parses the body as YAML, which supports neither surrogate pairs nor all unescaped characters."""
    await cluster.apply({**CONFIG, "data": {"a": text}})
    sent = await server.last.text()
    assert yaml.safe_load(sent)["data"] == json.loads(sent)["data"] == {"a": text}


async def test_concurrent_requests_share_limited_connections(
    server: Server, metrics: Metrics, tmp_path: Path
) -> None:
    """Each connection permanently costs memory, and more connections make nothing faster."""
    # With the default timeout, because it includes the time in the queue and the machine may be busy.
    cluster = await KubernetesClient.connect(metrics, str(write_kubeconfig(tmp_path, server.port)))
    concurrent, max_concurrent = 0, 0

    async def respond(_: web.Request) -> web.StreamResponse:
        nonlocal concurrent, max_concurrent
        concurrent += 1
        max_concurrent = max(max_concurrent, concurrent)
        await asyncio.sleep(0)
        concurrent -= 1
        return web.json_response(CONFIG)

    server.respond = respond
    found = await asyncio.gather(*(cluster.get(kinds.CONFIGMAP, "ns", "a") for _ in range(100)))
    await cluster.close()
    assert found == [CONFIG] * 100
    connections = {request.transport for request in server.requests}
    assert (max_concurrent <= MAX_CONNECTIONS, len(connections) <= MAX_CONNECTIONS) == (True, True)


async def test_list_ends_at_its_limit(cluster: KubernetesClient, server: Server) -> None:
    """Over all pages: others choose the number and the size of the objects, and the operator has 256 MiB."""

    async def respond(request: web.Request) -> web.StreamResponse:
        item = {"metadata": {"name": "p"}, "data": {"x": "x" * 100_000}}
        return web.json_response({"metadata": {"continue": "next"}, "items": [item]})

    server.respond = respond
    with pytest.raises(TooLarge):
        await cluster.list(kinds.CONFIGMAP, "ns", limit=ReadLimit(450_000))
    assert len(server.requests) == 5


async def test_small_members_count_more_than_their_text(cluster: KubernetesClient, server: Server) -> None:
    """A pod of others can have 100,000 variables `{"name":"a"}`, which need 20 MiB as dicts."""

    async def respond(_: web.Request) -> web.StreamResponse:
        variables = [{"name": "a"}] * 10_000
        return web.json_response({"items": [{"metadata": {"name": "p"}, "spec": {"env": variables}}]})

    server.respond = respond
    with pytest.raises(TooLarge):
        await cluster.list(kinds.POD, "ns", limit=ReadLimit(450_000))


async def test_limit_applies_to_several_requests(cluster: KubernetesClient, server: Server) -> None:
    """A reconcile keeps the objects of all of them."""
    limit = ReadLimit(2 * limit_of(CONFIG))
    assert await cluster.get(kinds.CONFIGMAP, "ns", "a", limit) == CONFIG
    assert await cluster.list(kinds.CONFIGMAP, "ns", limit=limit) == []
    with pytest.raises(TooLarge):
        await cluster.get(kinds.CONFIGMAP, "ns", "a", limit)
    assert limit.used <= limit.max_bytes
    assert limit.used < limit.memory <= max_memory(limit.max_bytes)


@pytest.mark.parametrize("character", ["x", "\N{CYRILLIC SMALL LETTER ZHE}", "\N{GRINNING FACE}"])
def test_memory_of_text_with_other_characters(character: str) -> None:
    """One of them is enough for two or four bytes for each character of a text."""
    limit, text = ReadLimit(2**20), "x" * 100_000 + character
    limit.take(json.dumps(text, ensure_ascii=False).encode(), "get a")
    assert sys.getsizeof(text) <= limit.memory + 100
    assert limit.memory <= max_memory(limit.used)


async def test_list_keeps_only_the_named_objects(cluster: KubernetesClient, server: Server) -> None:
    """Several lists are read at the same time: others' objects are dropped as soon as each page is decoded."""

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response({"items": [{"metadata": {"name": name}} for name in ("a", "b", "c")]})

    server.respond = respond
    found = await cluster.list(kinds.SECRET, "ns", names={"b"})
    assert [obj["metadata"]["name"] for obj in found] == ["b"]


async def test_list_of_names_requests_no_contents(cluster: KubernetesClient, server: Server) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        metadata = {"continue": str(page + 1)} if page < 2 else {}
        return web.json_response(
            {"metadata": metadata, "items": [{"metadata": {"namespace": "ns", "name": f"p{page}"}}]}
        )

    server.respond = respond
    assert await cluster.list_names(kinds.POD) == {("ns", "p0"), ("ns", "p1"), ("ns", "p2")}
    assert {request.headers["Accept"] for request in server.requests} == {
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    }


async def test_list_of_creation_times_requests_no_contents(cluster: KubernetesClient, server: Server) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        metadata = {"continue": str(page + 1)} if page < 1 else {}
        item = {"metadata": {"name": f"p{page}", "creationTimestamp": f"2026-01-0{page + 1}T00:00:00Z"}}
        return web.json_response({"metadata": metadata, "items": [item]})

    server.respond = respond
    assert await cluster.list_creation_times(kinds.MLFLOWSERVER, "ns") == {
        "p0": "2026-01-01T00:00:00Z",
        "p1": "2026-01-02T00:00:00Z",
    }
    assert {request.headers["Accept"] for request in server.requests} == {
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    }


async def test_list_reads_all_pages_and_adds_kind(cluster: KubernetesClient, server: Server) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        metadata = {"continue": str(page + 1)} if page < 2 else {}
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": f"p{page}"}}]})

    server.respond = respond
    found = await cluster.list(kinds.POD, "ns", "app.kubernetes.io/managed-by=mlflow-operator,a in (b,c)")
    assert [(obj["kind"], obj["metadata"]["name"]) for obj in found] == [
        ("Pod", "p0"),
        ("Pod", "p1"),
        ("Pod", "p2"),
    ]
    assert server.last.query["labelSelector"] == "app.kubernetes.io/managed-by=mlflow-operator,a in (b,c)"
    await cluster.list(kinds.POD)
    assert server.last.path == "/api/v1/pods"


async def test_apply_forces_conflicts_with_one_field_manager(
    cluster: KubernetesClient, server: Server
) -> None:
    await cluster.apply(CONFIG)
    assert (server.last.method, server.last.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert dict(server.last.query) == {"fieldManager": "mlflow-operator", "force": "true"}
    assert server.bodies[-1] == CONFIG
    await cluster.apply_status(CONFIG)
    assert server.last.path.endswith("/configmaps/a/status")


async def test_failed_test_operation_of_patch_is_conflict(cluster: KubernetesClient, server: Server) -> None:
    """The API server responds with 422 and does not name the failed operation."""
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "remove", "path": "/data/x"},
    ]
    server.respond = always(422, "Invalid")
    with pytest.raises(Conflict):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", operations)
    assert server.last.content_type == "application/json-patch+json"
    assert server.bodies[-1] == operations
    with pytest.raises(Invalid):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", operations[1:])
    server.respond = always(422, "Invalid", causes=[{"field": "spec.x", "message": "bad", "reason": "Bad"}])
    with pytest.raises(Invalid):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", operations)


async def test_apply_to_object_with_another_uid_is_conflict(
    cluster: KubernetesClient, server: Server
) -> None:
    server.respond = always(422, "Invalid", causes=[{"field": "metadata.uid", "message": "x", "reason": "y"}])
    with pytest.raises(Conflict):
        await cluster.apply(CONFIG)


async def test_apply_of_a_new_object_matches_no_existing_object(
    cluster: KubernetesClient, server: Server
) -> None:
    await cluster.apply_new(CONFIG)
    assert server.bodies[-1]["metadata"].pop("resourceVersion") == "1"
    assert server.bodies[-1] == CONFIG
    server.respond = always(409, "Conflict")
    with pytest.raises(AlreadyExists):
        await cluster.apply_new(CONFIG)


async def test_delete_is_limited_to_uid_and_ignores_missing_object(
    cluster: KubernetesClient, server: Server
) -> None:
    await cluster.delete(CONFIG)
    assert server.bodies[-1]["preconditions"] == {"uid": "u"}
    assert server.bodies[-1]["propagationPolicy"] == "Background"
    server.respond = always(404, "NotFound")
    await cluster.delete(CONFIG)
    server.respond = always(409, "Conflict")
    with pytest.raises(Conflict):
        await cluster.delete(CONFIG)


async def never_respond(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def hang_in_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"kind":')
    await asyncio.sleep(60)
    return response


async def close_connection(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def respond_with_proxy_page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>please log in</html>", content_type="text/html")


@pytest.mark.parametrize(
    "handler",
    [never_respond, hang_in_body, close_connection, respond_with_proxy_page],
    ids=lambda handler: handler.__name__,
)
async def test_missing_or_broken_response_is_unavailable(
    cluster: KubernetesClient, server: Server, handler: Handler
) -> None:
    server.respond = handler
    with pytest.raises(Unavailable, match="get ConfigMap ns/a"):
        await cluster.get(kinds.CONFIGMAP, "ns", "a")


async def test_refused_connection_is_unavailable(metrics: Metrics, tmp_path: Path) -> None:
    # No process listens on port 1 of the loopback interface.
    cluster = await KubernetesClient.connect(metrics, str(write_kubeconfig(tmp_path, 1)), timeout_seconds=2)
    with pytest.raises(Unavailable, match="cannot connect"):
        await cluster.get(kinds.CONFIGMAP, "ns", "a")
    await cluster.close()


async def test_client_does_not_retry(cluster: KubernetesClient, server: Server) -> None:
    async def throttle(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "reason": "x"}, status=429, headers={"Retry-After": "3"})

    server.respond = throttle
    with pytest.raises(Unavailable) as caught:
        await cluster.get(kinds.CONFIGMAP, "ns", "a")
    assert caught.value.retry_after == 3
    assert len(server.requests) == 1


async def test_only_writes_are_counted_by_kind_and_verb(cluster: KubernetesClient, metrics: Metrics) -> None:
    await cluster.get(kinds.CONFIGMAP, "ns", "a")
    await cluster.list(kinds.CONFIGMAP, "ns")
    for write in (cluster.create, cluster.replace, cluster.apply, cluster.apply_status, cluster.delete):
        await write(CONFIG)
    await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", [])
    counted = {
        sample.labels["verb"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "mlflow_operator_api_writes_total"
    }
    assert counted == dict.fromkeys(("create", "replace", "apply", "apply_status", "delete", "patch"), 1)


@pytest.mark.parametrize("code", [400, 403, 422, 500])
async def test_errors_do_not_contain_secret_values(
    cluster: KubernetesClient, server: Server, code: int
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "ns"},
        "stringData": {"password": "hunter2"},
    }

    async def return_request_body(request: web.Request) -> web.StreamResponse:
        sent = await request.text()
        body: Object = {"kind": "Status", "reason": "Invalid", "message": "" if code == 403 else sent}
        return web.json_response(body, status=code)

    server.respond = return_request_body
    with pytest.raises((Invalid, Forbidden, Unavailable, NotFound)) as caught:
        await cluster.apply(secret)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


async def test_in_cluster_token_is_read_again(
    server: Server, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes replaces the token every hour and rejects the old one soon afterwards."""
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_text("a certificate")

    class Loader(InClusterConfigLoader):  # type: ignore[misc]
        """Like in a pod, but with the loopback address and without TLS."""

        def _set_config(self, settings: Configuration) -> None:
            super()._set_config(settings)
            settings.host, settings.ssl_ca_cert = f"http://127.0.0.1:{server.port}", None

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    loader = Loader(str(tmp_path / "token"), str(tmp_path / "ca.crt"))
    monkeypatch.setattr("kubernetes.aio.config.load_incluster_config", loader.load_and_set)
    cluster = await KubernetesClient.connect(metrics)
    await cluster.get(kinds.CONFIGMAP, "ns", "a")
    assert server.last.headers["Authorization"].lower() == "bearer first"
    (tmp_path / "token").write_text("second")
    loader.token_expires_at = datetime.min
    await cluster.get(kinds.CONFIGMAP, "ns", "a")
    assert server.last.headers["Authorization"].lower() == "bearer second"
    await cluster.close()
