"""The HTTP session of the watches: credentials, and little memory whatever the objects contain."""

import asyncio
import json
import logging
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from mlflow_operator import api
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.runtime import watch, watch_session
from tests.unit.runtime.api_server import (
    APIServerWithSilentFirstWatch,
    api_server,
    server_event,
    watching,
)

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
    assert watch_session.server_name_of(meta) == server


OWNED_KINDS = {"configmaps": "ConfigMap", "pods": "Pod", "services": "Service"}


class APIServerWithLabelledObjects(APIServerWithSilentFirstWatch):
    """An API server with owned objects, with the given labels, in lists and watches. It records the requests for them.

    Two pages of each list have objects; there are no Services until they are watched.
    """

    def __init__(
        self,
        labels_of_listed: Mapping[str, str] | None = None,
        labels_of_watched: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.labels_of_watched = labels_of_listed or {}, labels_of_watched or {}
        self.pages = {page: self._page(page) for page in ("first", "second")}
        self.requests: dict[str, list[tuple[str, str]]] = {plural: [] for plural in (*OWNED_KINDS, "secrets")}
        self.accepted_for_servers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1":
            owned = [
                {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True}
                for plural, kind in {**OWNED_KINDS, "secrets": "Secret"}.items()
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
            self.accepted_for_servers["watch" if "watch" in query else "list"] = request.headers["Accept"]
        if plural in self.requests:
            self.requests[plural].append(("watch" if "watch" in query else "list", request.headers["Accept"]))
        if plural not in OWNED_KINDS:
            return await super().answer(request)
        assert query["labelSelector"] == labels.managed_selector()
        if "watch" not in query:
            # The API server omits spaces, and writes null for an empty list of metadata.
            empty = b'{"metadata":{"resourceVersion":"1"},"items":null}'
            body = empty if plural == "services" else self.pages[query.get("continue", "first")]
            return web.Response(body=body, content_type="application/json")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for event_type in ("ADDED", "DELETED"):
            event = {
                "type": event_type,
                "object": self._object(f"{plural}-{event_type.lower()}", self.labels_of_watched),
            }
            await stream.write(json.dumps(event).encode() + b"\n")
        await asyncio.sleep(3600)
        return stream

    def _page(self, page: str) -> bytes:
        metadata = {"resourceVersion": "1", "continue": "second" if page == "first" else ""}
        items = [self._object(f"{page}-{number}", self.labels) for number in range(watch.CHUNK_SIZE)]
        return json.dumps({"metadata": metadata, "items": items}, separators=(",", ":")).encode()

    def _object(self, name: str, more_labels: Mapping[str, str]) -> dict[str, object]:
        owner = {"kind": "MLflowServer", "name": name}
        own_labels = {f"{name}-{key}": value for key, value in more_labels.items()}
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
    async with watching(server.answer, found.put_nowait, folder, monkeypatch), asyncio.timeout(20):
        while expected:
            _, name = await found.get()
            expected = expected - {name}


LISTED = {f"{page}-{number}" for page in ("first", "second") for number in range(watch.CHUNK_SIZE)}


async def test_owned_objects_are_watched_without_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everyone can create objects with the operator's labels: their contents would end it at each start.

    Secrets are not watched at all: the operator has no permission for it.
    """
    server = APIServerWithLabelledObjects()
    watched = {f"{plural}-{event}" for plural in OWNED_KINDS for event in ("added", "deleted")}
    await _enqueued(server, LISTED | watched, tmp_path, monkeypatch)
    media_type = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
    a_list, a_watch = ("list", media_type.format("List")), ("watch", media_type.format(""))
    assert server.requests == {
        "configmaps": [a_list, a_list, a_watch],
        "pods": [a_list, a_list, a_watch],
        "services": [a_list, a_watch],
        "secrets": [],
    }
    # The last event of a deleted server must contain its status.
    assert server.accepted_for_servers == {"list": a_list[1], "watch": "*/*"}


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


async def test_handlers_get_watched_objects_without_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf keeps every event until a handler has run, and the API server sends bursts of them."""
    server = APIServerWithLabelledObjects(labels_of_watched={f"{number}": "" for number in range(20_000)})
    async with api_server(tmp_path, server.answer) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        session = await watch_session.Login().login(logger=logging.getLogger(), settings=watch.settings())
        assert session is not None
        query = {"watch": "true", "labelSelector": labels.managed_selector()}
        async with (
            session.aiohttp_session as client,
            client.get(f"{session.server}/api/v1/namespaces/team/pods", params=query) as response,
        ):
            stream = response.content.iter_chunked(1024)
            events = [json.loads(await anext(stream)) for _ in range(2)]
    assert [event["type"] for event in events] == ["ADDED", "DELETED"]
    assert events[0]["object"]["metadata"] == {
        "namespace": "team",
        "name": "pods-added",
        "uid": "pods-added",
        "labels": {labels.SERVER: "pods-added"},
        "finalizers": [],
    }


async def test_last_state_of_a_deleted_server_has_its_status_and_finalizer_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users can store 1 MiB of annotations, or of environment variables, in each of many servers."""
    deleted: asyncio.Future[tuple[NamespacedName, Object]] = asyncio.get_running_loop().create_future()
    server = APIServerWithSilentFirstWatch()
    status = {"artifacts": {"bucket": "models"}}
    metadata = {
        "annotations": {"a": "b"},
        "labels": {"c": "d"},
        "finalizers": ["example.com/x", labels.FINALIZER],
    }
    server.events = [server_event("DELETED", "old", metadata=metadata, spec={"env": []}, status=status)]
    server.watches = 1
    async with watching(
        server.answer,
        lambda key: None,
        tmp_path,
        monkeypatch,
        on_deleted=lambda key, last_state: deleted.set_result((key, last_state)),
    ):
        async with asyncio.timeout(20):
            key, last_state = await deleted
    assert key == ("team", "old")
    assert last_state == {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "metadata": {
            "namespace": "team",
            "name": "old",
            "uid": "old",
            "labels": {},
            "finalizers": [labels.FINALIZER],
        },
        "status": status,
    }


async def test_rejected_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet renews the token in its file. The watches continue with the new one."""
    found: asyncio.Future[NamespacedName] = asyncio.get_running_loop().create_future()
    server = APIServerWithSilentFirstWatch()
    server.watches = 1
    rejected = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal rejected
        if request.headers["Authorization"] == "Bearer fresh":
            return await server.answer(request)
        rejected += 1
        config = tmp_path / "config"
        config.write_text(config.read_text().replace("stale", "fresh"))
        return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)

    async with watching(answer, found.set_result, tmp_path, monkeypatch), asyncio.timeout(20):
        assert await found == ("team", "new")
    assert rejected
