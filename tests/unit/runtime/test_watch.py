"""How kopf is made to watch: what it must not do, and what it must not ask for."""

import asyncio
import gc
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlflow_operator import api
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime import watch

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def test_kopf_writes_nothing() -> None:
    """Events are ours alone to publish."""
    assert not watch.settings().posting.enabled


def test_a_list_of_namespaces_takes_no_rights_beyond_them() -> None:
    """kopf asks for namespaces and definitions, is refused, and tries again for a minute before it watches."""
    assert watch.settings(["team-a"]).scanning.disabled


def test_all_namespaces_notice_a_definition_that_comes_late() -> None:
    """With the whole cluster in view kopf looks out for it; the ClusterRole grants that."""
    assert not watch.settings().scanning.disabled


def test_an_api_server_that_stays_away_is_waited_for() -> None:
    """An hour of requests that fail is not given up on; each is at most a few seconds behind its return."""
    pauses = list(itertools.islice(watch.settings().networking.error_backoffs, 1000))  # type: ignore[arg-type]
    assert sum(pauses) > 3600
    assert 1 <= min(pauses) <= max(pauses) <= 10


def test_a_watch_that_fell_silent_is_begun_anew() -> None:
    """The API server sends a bookmark about every minute; a connection that died unseen sends nothing."""
    assert 60 < watch.settings().watching.inactivity_timeout < 75


OWNER = {"kind": "MLflowServer", "name": "tracking", "controller": True}


@pytest.mark.parametrize(
    ("meta", "server"),
    [
        ({"labels": {"mlflow-operator.dev/server": "tracking"}}, "tracking"),
        ({"labels": {"app": "removed-by-somebody"}, "ownerReferences": [OWNER]}, "tracking"),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "tracking-5d4f"}]}, None),
        ({}, None),
    ],
)
def test_event_concerns_the_server_of_the_label_or_of_the_owner_reference(
    meta: dict[str, object], server: str | None
) -> None:
    """An object whose label was removed is repaired at once, not at the next resync."""
    assert watch.server_of(meta) == server


@asynccontextmanager
async def api_server(folder: Path, handle: Handler) -> AsyncIterator[dict[str, str]]:
    """One that answers everything by `handle`, here and in plain text; gives the environment that leads to it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(application) as server:
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {"server": str(server.make_url("/"))}}],
            "users": [{"name": "it", "user": {"token": "stale"}}],
        }
        (folder / "config").write_text(yaml.safe_dump(config))
        yield {"KUBECONFIG": str(folder / "config")}


async def test_a_token_that_is_refused_ends_the_watching_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process begins anew and reads its token anew; kopf alone would end with a traceback."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)

    async with api_server(tmp_path, refuse) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        with pytest.raises(watch.WatchLost, match="LoginError"):
            await watch.run(lambda key: None, lambda key: None, lambda key, was: None, ())


class Forgetful:
    """An API server of MLflowServers alone, whose first watch says nothing, as if something between forgot it."""

    def __init__(self) -> None:
        self.watches = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/api":
                return web.json_response({"versions": ["v1"]})
            case "/api/v1":
                # without them kopf does not begin
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


async def test_a_server_that_a_silent_watch_missed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would tell of one that is new."""
    monkeypatch.setattr(watch, "INACTIVITY_TIMEOUT_SECONDS", 0.2)
    found: asyncio.Future[NamespacedName] = asyncio.get_running_loop().create_future()
    async with api_server(tmp_path, Forgetful().answer) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        watching = asyncio.create_task(
            watch.run(found.set_result, lambda key: None, lambda key, was: None, ["team"])
        )
        async with asyncio.timeout(20):
            assert await found == ("team", "new")
        watching.cancel()
        await asyncio.wait({watching})
    # kopf, cancelled, leaves its session to the collector, which would complain of it in the midst of another test
    del watching
    gc.collect()
