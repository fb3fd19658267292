"""kopf settings and watches: no writes by kopf, no requests beyond the operator's permissions, no lost watches."""

import asyncio
import itertools
from pathlib import Path

import pytest
from aiohttp import web

from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime import watch
from tests.unit.runtime.api_server import (
    APIServerWithPlatform,
    APIServerWithSilentFirstWatch,
    api_server,
    watching,
)


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


async def test_rejected_token_raises_watch_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process restarts and reads its token again; kopf alone would exit with a traceback."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)

    async with api_server(tmp_path, refuse) as environment:
        monkeypatch.setenv("KUBECONFIG", environment["KUBECONFIG"])
        with pytest.raises(watch.WatchLost, match="LoginError"):
            await watch.run(lambda key: None, lambda key, metadata: None, lambda key, last_state: None, ())


async def test_new_server_is_found_after_a_silent_watch_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No resync would find a new server."""
    found: asyncio.Future[NamespacedName] = asyncio.get_running_loop().create_future()
    server = APIServerWithSilentFirstWatch()
    async with watching(
        server.answer, found.set_result, tmp_path, monkeypatch, inactivity_timeout_seconds=0.2
    ):
        async with asyncio.timeout(20):
            assert await found == ("team", "new")


async def test_platforms_are_watched_by_an_operator_of_selected_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cluster-scoped: their keys have no namespace. The generation distinguishes changes of the spec."""
    found = asyncio.Queue[tuple[str, NamespacedName]]()
    generations: list[int] = []
    async with watching(
        APIServerWithPlatform().answer,
        lambda key: found.put_nowait(("enqueued", key)),
        tmp_path,
        monkeypatch,
        on_deleted=lambda key, last_state: found.put_nowait(("deleted", key)),
        on_seen=lambda key, metadata: generations.append(metadata["generation"]),
    ):
        async with asyncio.timeout(20):
            events = [await found.get() for _ in range(3)]
    key = ("", "shared")
    assert events == [("enqueued", key), ("deleted", key), ("enqueued", key)]
    assert generations == [3]
