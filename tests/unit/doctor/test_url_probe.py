"""Requests to the URL of a server."""

import json
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from click.testing import CliRunner

from mlflow_operator.cli import main
from mlflow_operator.doctor import url_probe
from mlflow_operator.doctor.observed import (
    ArtifactRoots,
    ExperimentLocation,
    ProbeResult,
    UnreadableArtifacts,
)
from tests.unit.web_server import serve


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """URL of a server that rejects the host name `localhost` like MLflow."""

    async def search_experiments(request: web.Request) -> web.Response:
        if request.host.startswith("localhost"):
            return web.Response(
                status=403, text="Invalid Host header - possible DNS rebinding attack detected"
            )
        return web.json_response({"experiments": []})

    app = web.Application()
    app.router.add_get("/api/2.0/mlflow/experiments/search", search_experiments)
    async with serve(app) as url:
        yield url


async def test_responses_and_errors_are_distinguished(url: str) -> None:
    """A response, a rejected host name, another program at the address, nothing listening, an unknown host name."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # without listen(), so that connections are refused
        not_listening = f"http://127.0.0.1:{bound.getsockname()[1]}"
        rejected_host, other_path = url.replace("127.0.0.1", "localhost"), f"{url}/elsewhere"
        unknown_host = "http://tracking.nowhere.invalid:5000"
        results = await url_probe.probe_urls(
            [url, rejected_host, other_path, not_listening, unknown_host, "no URL"]
        )
    assert results[url] == ProbeResult(200)
    assert results[rejected_host] == ProbeResult(403, host_rejected=True)
    assert results[other_path] == ProbeResult(404)
    failed = (not_listening, unknown_host, "no URL")
    assert [results[url].status for url in failed] == [None, None, None]
    assert "refused" in results[not_listening].error
    assert all(results[url].error for url in failed)


async def test_a_server_without_response_times_out() -> None:
    """It accepts the connection, but does not respond."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await url_probe.probe_urls([url], 0.2) == {url: ProbeResult(None, "timeout after 0.2 s")}


def test_output_of_probe_urls_can_be_parsed() -> None:
    """The two processes may have different versions."""
    result = CliRunner().invoke(main, ["probe-urls", "http://127.0.0.1:9"])
    assert url_probe.from_json(result.stdout)["http://127.0.0.1:9"].status is None
    for invalid in ("Usage: ...", json.dumps({"a": {"newField": 1}}), json.dumps([1])):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            url_probe.from_json(invalid)


@pytest.fixture
async def tracking() -> AsyncIterator[str]:
    """URL of a server with one experiment per page: a readable one, one in another store that does not exist, one
    without runs, and one that is deleted during the request."""
    locations = {
        "1": "mlflow-artifacts:/1",
        "2": "s3://other/2",
        "3": "mlflow-artifacts:/3",
        "4": "mlflow-artifacts:/4",
    }
    runs = {"1": "a", "2": "b"}

    async def experiments(request: web.Request) -> web.Response:
        ids = sorted(locations)
        index = ids.index(request.query.get("page_token", "1"))
        page = [{"experiment_id": ids[index], "artifact_location": locations[ids[index]]}]
        next_page = {"next_page_token": ids[index + 1]} if index + 1 < len(ids) else {}
        return web.json_response({"experiments": page, **next_page})

    async def search_runs(request: web.Request) -> web.Response:
        query = await request.json()
        (experiment,) = query["experiment_ids"]
        assert (query["max_results"], query["order_by"]) == (1, ["attributes.start_time DESC"])
        if experiment == "4":
            return web.json_response({}, status=404)
        if experiment not in runs:
            return web.json_response({"runs": []})
        uri = f"{locations[experiment]}/{runs[experiment]}/artifacts"
        return web.json_response({"runs": [{"info": {"run_id": runs[experiment], "artifact_uri": uri}}]})

    async def list_artifacts(request: web.Request) -> web.Response:
        return web.json_response({}, status=500 if request.query["run_id"] == "b" else 200)

    app, api = web.Application(), "/api/2.0/mlflow"
    app.router.add_get(f"{api}/experiments/search", experiments)
    app.router.add_post(f"{api}/runs/search", search_runs)
    app.router.add_get(f"{api}/artifacts/list", list_artifacts)
    async with serve(app) as url:
        yield url


async def test_unreadable_artifacts_are_found(tracking: str) -> None:
    """The result is preserved in JSON."""
    results = await url_probe.probe_urls([tracking])
    assert results[tracking].artifact_roots == ArtifactRoots(
        2,
        (UnreadableArtifacts("b", "s3://other/2/b/artifacts", "status 500"),),
        (ExperimentLocation("2", "s3://other/2"),),
        1,
    )
    assert url_probe.from_json(url_probe.as_json(results)) == results
