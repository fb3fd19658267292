"""Local HTTP servers that behave like an API server for the watches, and misbehave like a broken network."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlflow_operator import api
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.runtime import watch

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def api_server(folder: Path, handle: Handler) -> AsyncIterator[dict[str, str]]:
    """A local HTTP server that answers all requests with `handle`. Yields the environment that connects to it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(application) as server:
        config = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": str(server.make_url("/"))}}],
            "users": [{"name": "test", "user": {"token": "stale"}}],
        }
        (folder / "config").write_text(yaml.safe_dump(config))
        yield {"KUBECONFIG": str(folder / "config")}


def server_event(event_type: str, name: str, **parts: object) -> Object:
    """An event of the MLflowServer team/`name`. `parts` are the other keys of the object or of its metadata."""
    metadata = {"namespace": "team", "name": name, "uid": name, **cast("Object", parts.pop("metadata", {}))}
    return {
        "type": event_type,
        "object": {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": metadata, **parts},
    }


class APIServerWithSilentFirstWatch:
    """An API server that serves only MLflowServers and never sends data on the first watch.

    This simulates a connection whose state a firewall has dropped.
    """

    def __init__(self) -> None:
        self.watches = 0
        self.events = [server_event("ADDED", "new")]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        discovered = _discovery(request.path, "mlflowservers", api.KIND, namespaced=True)
        if discovered is not None:
            return web.json_response(discovered)
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        self.watches += 1
        stream = web.StreamResponse()
        await stream.prepare(request)
        for event in self.events if self.watches > 1 else ():
            await stream.write(json.dumps(event).encode() + b"\n")
        await asyncio.sleep(3600)
        return stream


class APIServerWithPlatform:
    """An API server that serves only MLflowPlatforms, with one platform that is deleted during the watch."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        metadata = {"name": "shared", "uid": "shared", "generation": 3}
        platform = {"apiVersion": api.API_VERSION, "kind": "MLflowPlatform", "metadata": metadata}
        discovered = _discovery(request.path, "mlflowplatforms", "MLflowPlatform", namespaced=False)
        if discovered is not None:
            return web.json_response(discovered)
        assert request.path == "/apis/mlflow-operator.dev/v1alpha1/mlflowplatforms"
        if "watch" not in request.query:
            return web.json_response({"items": [platform], "metadata": {"resourceVersion": "1"}})
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(json.dumps({"type": "DELETED", "object": platform}).encode() + b"\n")
        await asyncio.sleep(3600)
        return stream


def _discovery(path: str, plural: str, kind: str, *, namespaced: bool) -> Object | None:
    """Return the answer of an API server with one custom resource, None if the path is not about its API."""
    match path:
        case "/api":
            return {"versions": ["v1"]}
        case "/api/v1":
            # kopf does not start without them.
            namespaces = {"name": "namespaces", "singularName": "namespace", "kind": "Namespace"}
            return {"resources": [{**namespaces, "namespaced": False, "verbs": ["list"]}]}
        case "/apis":
            version = {"groupVersion": api.API_VERSION, "version": "v1alpha1"}
            group = {"name": "mlflow-operator.dev", "versions": [version], "preferredVersion": version}
            return {"groups": [group]}
        case "/apis/mlflow-operator.dev/v1alpha1":
            names = {"name": plural, "singularName": plural.removesuffix("s"), "kind": kind}
            return {"resources": [{**names, "namespaced": namespaced, "verbs": ["list", "watch"]}]}
    return None


@asynccontextmanager
async def watching(
    answer: Handler,
    enqueue: Callable[[NamespacedName], None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    inactivity_timeout_seconds: float = watch.INACTIVITY_TIMEOUT_SECONDS,
    on_deleted: Callable[[NamespacedName, Object], None] = lambda key, last_state: None,
    on_seen: Callable[[NamespacedName, Mapping[str, Any]], None] = lambda key, metadata: None,
) -> AsyncIterator[None]:
    """Watch the namespace `team` of the API server."""
    async with api_server(folder, answer) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        watch_task = asyncio.create_task(
            watch.run(enqueue, on_seen, on_deleted, ["team"], inactivity_timeout_seconds)
        )
        try:
            yield
        finally:
            watch_task.cancel()
            await asyncio.wait({watch_task}, timeout=20)
    # A cancelled kopf does not close its session. Without this, the garbage collector would warn during another test.
    del watch_task
    gc.collect()
