"""kopf settings and watches: no writes by kopf, no requests beyond the operator's permissions, no lost watches."""

import asyncio
import gc
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlflow_operator import api
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime import watch

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def test_kopf_publishes_no_events() -> None:
    """The operator publishes its Events itself."""
    assert not watch.settings().posting.enabled


def test_watching_single_namespaces_needs_no_cluster_permissions() -> None:
    """kopf would request namespaces and CRDs, and retry the forbidden requests for a minute before it watches."""
    assert watch.settings(["team-a"]).scanning.disabled


def test_watching_all_namespaces_detects_a_crd_installed_later() -> None:
    """kopf then watches CRDs; the ClusterRole allows it."""
    assert not watch.settings().scanning.disabled


def test_unavailable_api_server_is_retried_for_hours() -> None:
    """Requests are retried for more than an hour, and succeed at most a few seconds after the API server is back."""
    delays = list(itertools.islice(watch.settings().networking.error_backoffs, 1000))  # type: ignore[arg-type]
    assert sum(delays) > 3600
    assert 1 <= min(delays) <= max(delays) <= 10


def test_inactivity_timeout_is_longer_than_the_bookmark_interval() -> None:
    """The API server sends a bookmark about every minute; a connection lost without a notice sends nothing."""
    assert 60 < watch.settings().watching.inactivity_timeout < 75


def test_objects_with_forged_labels_are_not_kept_in_memory() -> None:
    """Everyone can create them: 300 MiB in one response would end the operator at each start."""
    settings = watch.settings()
    assert settings.watching.chunk_size is not None
    assert settings.watching.chunk_size <= 10
    assert not settings.watching.initial_streaming
    assert settings.queueing.idle_timeout <= 0.1


OWNER = {"kind": "MLflowServer", "name": "tracking", "controller": True}


@pytest.mark.parametrize(
    ("meta", "server"),
    [
        ({"labels": {"mlflow-operator.dev/server": "tracking"}}, "tracking"),
        ({"labels": {"app": "label-removed"}, "ownerReferences": [OWNER]}, "tracking"),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "tracking-5d4f"}]}, None),
        ({}, None),
    ],
)
def test_event_is_mapped_to_the_server_by_label_or_owner_reference(
    meta: dict[str, object], server: str | None
) -> None:
    """A removed label is restored at once, not at the next resync."""
    assert watch.server_name_of(meta) == server


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


async def test_rejected_token_raises_watch_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process restarts and reads its token again; kopf alone would exit with a traceback."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)

    async with api_server(tmp_path, refuse) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        with pytest.raises(watch.WatchLost, match="LoginError"):
            await watch.run(lambda key: None, lambda key: None, lambda key, last_state: None, ())


class APIServerWithSilentFirstWatch:
    """An API server that serves only MLflowServers and never sends data on the first watch.

    This simulates a connection whose state a firewall has dropped.
    """

    def __init__(self) -> None:
        self.watches = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/api":
                return web.json_response({"versions": ["v1"]})
            case "/api/v1":
                # kopf does not start without them.
                namespaces = {"name": "namespaces", "singularName": "namespace", "kind": "Namespace"}
                return web.json_response(
                    {"resources": [{**namespaces, "namespaced": False, "verbs": ["list"]}]}
                )
            case "/apis":
                version = {"groupVersion": api.API_VERSION, "version": "v1alpha1"}
                group = {"name": "mlflow-operator.dev", "versions": [version], "preferredVersion": version}
                return web.json_response({"groups": [group]})
            case "/apis/mlflow-operator.dev/v1alpha1":
                names = {"name": "mlflowservers", "singularName": "mlflowserver", "kind": api.KIND}
                resource = {**names, "namespaced": True, "verbs": ["list", "watch"]}
                return web.json_response({"resources": [resource]})
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        self.watches += 1
        stream = web.StreamResponse()
        await stream.prepare(request)
        if self.watches > 1:
            added = {
                "type": "ADDED",
                "object": {"metadata": {"namespace": "team", "name": "new", "uid": "1"}},
            }
            await stream.write(json.dumps(added).encode() + b"\n")
        await asyncio.sleep(3600)
        return stream


@asynccontextmanager
async def watching(
    server: APIServerWithSilentFirstWatch,
    enqueue: Callable[[NamespacedName], None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    inactivity_timeout_seconds: float = watch.INACTIVITY_TIMEOUT_SECONDS,
) -> AsyncIterator[None]:
    """Watch the namespace `team` of the API server."""
    async with api_server(folder, server.answer) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        watch_task = asyncio.create_task(
            watch.run(
                enqueue, lambda key: None, lambda key, last_state: None, ["team"], inactivity_timeout_seconds
            )
        )
        try:
            yield
        finally:
            watch_task.cancel()
            await asyncio.wait({watch_task}, timeout=20)
    # A cancelled kopf does not close its session. Without this, the garbage collector would warn during another test.
    del watch_task
    gc.collect()


async def test_new_server_is_found_after_a_silent_watch_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No resync would find a new server."""
    found: asyncio.Future[NamespacedName] = asyncio.get_running_loop().create_future()
    server = APIServerWithSilentFirstWatch()
    async with watching(server, found.set_result, tmp_path, monkeypatch, inactivity_timeout_seconds=0.2):
        async with asyncio.timeout(20):
            assert await found == ("team", "new")


OWNED_KINDS = {"configmaps": "ConfigMap", "pods": "Pod", "secrets": "Secret"}


class APIServerWithLabelledObjects(APIServerWithSilentFirstWatch):
    """An API server with owned objects, each with `labels`, in lists and watches. It records the requests for them.

    Two pages of each list have objects; there are no Secrets until they are watched.
    """

    def __init__(self, labels_of_object: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.labels = labels_of_object or {}
        self.pages = {page: self._page(page) for page in ("first", "second")}
        self.requests: dict[str, list[tuple[str, str]]] = {plural: [] for plural in OWNED_KINDS}
        self.accepted_for_servers: set[str] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1":
            owned = [
                {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True}
                for plural, kind in OWNED_KINDS.items()
            ]
            namespaces = {
                "name": "namespaces",
                "singularName": "namespace",
                "kind": "Namespace",
                "namespaced": False,
            }
            return web.json_response(
                {"resources": [{**names, "verbs": ["list", "watch"]} for names in (namespaces, *owned)]}
            )
        plural, query = request.path.rpartition("/")[2], request.query
        if plural == "mlflowservers":
            self.accepted_for_servers.add(request.headers["Accept"])
        if plural not in OWNED_KINDS:
            return await super().answer(request)
        assert query["labelSelector"] == labels.managed_selector()
        self.requests[plural].append(("watch" if "watch" in query else "list", request.headers["Accept"]))
        if "watch" not in query:
            # The API server omits spaces, and writes null for an empty list of metadata.
            empty = b'{"metadata":{"resourceVersion":"1"},"items":null}'
            body = empty if plural == "secrets" else self.pages[query.get("continue", "first")]
            return web.Response(body=body, content_type="application/json")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for event_type in ("ADDED", "DELETED"):
            event = {"type": event_type, "object": self._object(f"{plural}-{event_type.lower()}")}
            await stream.write(json.dumps(event).encode() + b"\n")
        await asyncio.sleep(3600)
        return stream

    def _page(self, page: str) -> bytes:
        metadata = {"resourceVersion": "1", "continue": "second" if page == "first" else ""}
        items = [self._object(f"{page}-{number}") for number in range(watch.CHUNK_SIZE)]
        return json.dumps({"metadata": metadata, "items": items}, separators=(",", ":")).encode()

    def _object(self, name: str) -> dict[str, object]:
        owner = {"kind": "MLflowServer", "name": name}
        own_labels = {f"{name}-{key}": value for key, value in self.labels.items()}
        return {
            "metadata": {
                "namespace": "team",
                "name": name,
                "uid": name,
                "ownerReferences": [owner],
                "labels": own_labels,
            }
        }


async def _enqueued(
    server: APIServerWithLabelledObjects, expected: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watch until all the `expected` servers are enqueued."""
    found = asyncio.Queue[NamespacedName]()
    async with watching(server, found.put_nowait, folder, monkeypatch), asyncio.timeout(20):
        while expected:
            _, name = await found.get()
            expected = expected - {name}


LISTED = {f"{page}-{number}" for page in ("first", "second") for number in range(watch.CHUNK_SIZE)}


async def test_owned_objects_are_watched_without_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everyone can create objects with the operator's labels: their contents would end it at each start."""
    server = APIServerWithLabelledObjects()
    watched = {f"{plural}-{event}" for plural in OWNED_KINDS for event in ("added", "deleted")}
    await _enqueued(server, LISTED | watched, tmp_path, monkeypatch)
    media_type = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
    a_list, a_watch = ("list", media_type.format("List")), ("watch", media_type.format(""))
    assert server.requests == {
        "configmaps": [a_list, a_list, a_watch],
        "pods": [a_list, a_list, a_watch],
        "secrets": [a_list, a_watch],
    }
    assert not any("PartialObjectMetadata" in accepted for accepted in server.accepted_for_servers)


async def test_owned_objects_with_many_labels_are_listed_with_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are metadata. A decoded page would need ten times the memory of its text, for each kind."""
    server = APIServerWithLabelledObjects({f"{number}": "" for number in range(10_000)})
    tracemalloc.start()
    try:
        await _enqueued(server, LISTED, tmp_path, monkeypatch)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * len(server.pages["first"])
