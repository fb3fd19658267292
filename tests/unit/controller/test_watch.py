"""How kopf is made to watch: what it must not do, and what it must not ask for."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlflow_operator.controller import watch


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


@pytest.fixture
async def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """An API server that takes no token, however fresh."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)

    application = web.Application()
    application.router.add_route("*", "/{any:.*}", refuse)
    async with TestServer(application) as server:
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {"server": str(server.make_url("/"))}}],
            "users": [{"name": "it", "user": {"token": "stale"}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield


async def test_a_token_that_is_refused_ends_the_watching_in_order(refusing: None) -> None:
    """The process begins anew and reads its token anew; kopf alone would end with a traceback."""
    with pytest.raises(watch.WatchLost, match="LoginError"):
        await watch.run(lambda key: None, ())
