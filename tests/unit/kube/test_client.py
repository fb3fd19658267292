"""The client against a web server that answers as the API server does, and as it does on bad days."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import CONNECTIONS, KubernetesClient
from mlflow_operator.kube.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.metrics import Metrics
from tests.unit.kubeconfig import kubeconfig

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns", "uid": "u"}}


def status(code: int, reason: str, **details: Any) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": "", "details": details}
    return web.json_response(body, status=code)


@dataclass
class Server:
    """What was asked, and how to answer."""

    asked: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    answer: Answer | None = None
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        if self.answer is not None:
            return await self.answer(request)
        return web.json_response(CONFIG)

    @property
    def last(self) -> web.Request:
        return self.asked[-1]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    # What a client does not wait for must not hold up the end of a test.
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def cluster(server: Server, metrics: Metrics, tmp_path: Path) -> AsyncIterator[KubernetesClient]:
    cluster = await KubernetesClient.connect(metrics, str(kubeconfig(tmp_path, server.port)), seconds=0.5)
    yield cluster
    await cluster.close()


def always(code: int, reason: str, **details: Any) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return status(code, reason, **details)

    return answer


async def test_get_gives_the_object_as_it_is_and_none_for_none(
    cluster: KubernetesClient, server: Server
) -> None:
    assert await cluster.get(kinds.CONFIGMAP, "ns", "a") == CONFIG
    assert server.last.path == "/api/v1/namespaces/ns/configmaps/a"
    assert server.last.headers["Authorization"] == "Bearer the-token"
    server.answer = always(404, "NotFound")
    assert await cluster.get(kinds.CONFIGMAP, "ns", "b") is None


@pytest.mark.parametrize(
    "text",
    ["plain", "Grüße", "\U0001f600", "\x7f\x85\u2028\ufeff\uffff", 'a "quoted" \\ud83d\\ude00', "\t\n\x00"],
)
async def test_what_is_applied_arrives_letter_by_letter(
    cluster: KubernetesClient, server: Server, text: str
) -> None:
    """The API server reads it as YAML, which knows neither JSON's pairs of escapes nor all plain letters."""
    await cluster.apply({**CONFIG, "data": {"a": text}})
    sent = await server.last.text()
    assert yaml.safe_load(sent)["data"] == json.loads(sent)["data"] == {"a": text}


async def test_a_crowd_waits_in_line_for_few_connections(
    server: Server, metrics: Metrics, tmp_path: Path
) -> None:
    """Each connection costs the operator memory for good, and more of them make nothing faster."""
    # with the time a request really has: waiting in line counts, and the machine may be busy
    cluster = await KubernetesClient.connect(metrics, str(kubeconfig(tmp_path, server.port)))
    busy, most = 0, 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return web.json_response(CONFIG)

    server.answer = answer
    found = await asyncio.gather(*(cluster.get(kinds.CONFIGMAP, "ns", "a") for _ in range(100)))
    await cluster.close()
    assert found == [CONFIG] * 100
    connections = {request.transport for request in server.asked}
    assert (most <= CONNECTIONS, len(connections) <= CONNECTIONS) == (True, True)


async def test_list_reads_all_pages_and_says_what_each_object_is(
    cluster: KubernetesClient, server: Server
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        more = {"continue": str(page + 1)} if page < 2 else {}
        return web.json_response({"metadata": more, "items": [{"metadata": {"name": f"p{page}"}}]})

    server.answer = answer
    found = await cluster.list(kinds.POD, "ns", "app.kubernetes.io/managed-by=mlflow-operator,a in (b,c)")
    assert [(obj["kind"], obj["metadata"]["name"]) for obj in found] == [
        ("Pod", "p0"),
        ("Pod", "p1"),
        ("Pod", "p2"),
    ]
    assert server.last.query["labelSelector"] == "app.kubernetes.io/managed-by=mlflow-operator,a in (b,c)"
    await cluster.list(kinds.POD)
    assert server.last.path == "/api/v1/pods"


async def test_apply_takes_over_by_force_under_one_name(cluster: KubernetesClient, server: Server) -> None:
    await cluster.apply(CONFIG)
    assert (server.last.method, server.last.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert dict(server.last.query) == {"fieldManager": "mlflow-operator", "force": "true"}
    assert server.bodies[-1] == CONFIG
    await cluster.apply_status(CONFIG)
    assert server.last.path.endswith("/configmaps/a/status")


async def test_a_failed_test_of_a_patch_is_a_conflict(cluster: KubernetesClient, server: Server) -> None:
    """The API server answers 422 and does not say which step it was."""
    steps = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "remove", "path": "/data/x"},
    ]
    server.answer = always(422, "Invalid")
    with pytest.raises(Conflict):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", steps)
    assert server.last.content_type == "application/json-patch+json"
    assert server.bodies[-1] == steps
    with pytest.raises(Invalid):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", steps[1:])
    server.answer = always(422, "Invalid", causes=[{"field": "spec.x", "message": "bad", "reason": "Bad"}])
    with pytest.raises(Invalid):
        await cluster.json_patch(kinds.CONFIGMAP, "ns", "a", steps)


async def test_applying_to_another_object_of_the_name_is_a_conflict(
    cluster: KubernetesClient, server: Server
) -> None:
    server.answer = always(422, "Invalid", causes=[{"field": "metadata.uid", "message": "x", "reason": "y"}])
    with pytest.raises(Conflict):
        await cluster.apply(CONFIG)


async def test_delete_means_this_very_object_and_gone_is_fine(
    cluster: KubernetesClient, server: Server
) -> None:
    await cluster.delete(CONFIG)
    assert server.bodies[-1]["preconditions"] == {"uid": "u"}
    assert server.bodies[-1]["propagationPolicy"] == "Background"
    server.answer = always(404, "NotFound")
    await cluster.delete(CONFIG)
    server.answer = always(409, "Conflict")
    with pytest.raises(Conflict):
        await cluster.delete(CONFIG)


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def hang_in_the_middle(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    await answer.write(b'{"kind":')
    await asyncio.sleep(60)
    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def page_of_a_proxy(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>please log in</html>", content_type="text/html")


@pytest.mark.parametrize(
    "answer", [hang, hang_in_the_middle, hang_up, page_of_a_proxy], ids=lambda each: each.__name__
)
async def test_no_answer_in_time_is_one_error_whatever_the_cause(
    cluster: KubernetesClient, server: Server, answer: Answer
) -> None:
    server.answer = answer
    with pytest.raises(Unavailable, match="get ConfigMap ns/a"):
        await cluster.get(kinds.CONFIGMAP, "ns", "a")


async def test_no_server_is_the_same_error(metrics: Metrics, tmp_path: Path) -> None:
    # Port 1 of the loopback is nobody's.
    cluster = await KubernetesClient.connect(metrics, str(kubeconfig(tmp_path, 1)), seconds=2)
    with pytest.raises(Unavailable, match="no connection"):
        await cluster.get(kinds.CONFIGMAP, "ns", "a")
    await cluster.close()


async def test_nothing_is_tried_twice_behind_the_queues_back(
    cluster: KubernetesClient, server: Server
) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "reason": "x"}, status=429, headers={"Retry-After": "3"})

    server.answer = busy
    with pytest.raises(Unavailable) as caught:
        await cluster.get(kinds.CONFIGMAP, "ns", "a")
    assert caught.value.retry_after == 3
    assert len(server.asked) == 1


async def test_writes_are_counted_by_kind_and_verb_and_reads_are_not(
    cluster: KubernetesClient, metrics: Metrics
) -> None:
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
async def test_no_error_repeats_a_secret(cluster: KubernetesClient, server: Server, code: int) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "ns"},
        "stringData": {"password": "hunter2"},
    }

    async def quote(request: web.Request) -> web.StreamResponse:
        sent = await request.text()
        body: Object = {"kind": "Status", "reason": "Invalid", "message": "" if code == 403 else sent}
        return web.json_response(body, status=code)

    server.answer = quote
    with pytest.raises((Invalid, Forbidden, Unavailable, NotFound)) as caught:
        await cluster.apply(secret)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


async def test_in_a_cluster_the_token_is_read_again(
    server: Server, metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes replaces it every hour, and refuses the old one soon after."""
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_text("a certificate")

    class Loader(InClusterConfigLoader):  # type: ignore[misc]
        """As in a pod, but with the loopback's address and no TLS."""

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
