"""A server's URL is asked as a client asks it."""

import json
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from click.testing import CliRunner

from mlflow_operator.cli import main
from mlflow_operator.doctor import reach
from mlflow_operator.doctor.seen import Elsewhere, LostRoot, ProbeResult, Roots


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that answers the API, and refuses those who call it `localhost` as MLflow does."""

    async def answer(request: web.Request) -> web.Response:
        if request.host.startswith("localhost"):
            return web.Response(
                status=403, text="Invalid Host header - possible DNS rebinding attack detected"
            )
        return web.json_response({"experiments": []})

    app = web.Application()
    app.router.add_get("/api/2.0/mlflow/experiments/search", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_each_answer_is_told_for_what_it_is(url: str) -> None:
    """An answer, a refused name, something else under that address, nobody, and no such name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened at: a connection is refused
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        foreign, elsewhere = url.replace("127.0.0.1", "localhost"), f"{url}/elsewhere"
        unknown = "http://tracking.nowhere.invalid:5000"
        found = await reach.ask([url, foreign, elsewhere, nobody, unknown, "no URL"])
    assert found[url] == ProbeResult(200)
    assert found[foreign] == ProbeResult(403, foreign=True)
    assert found[elsewhere] == ProbeResult(404)
    assert (found[nobody].status, found[unknown].status, found["no URL"].status) == (None, None, None)
    assert "refused" in found[nobody].error
    assert all(found[one].error for one in (nobody, unknown, "no URL"))


async def test_a_server_that_is_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr(reach, "SECONDS", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert await reach.ask([url]) == {url: ProbeResult(None, "none within 0.2 s")}


def test_what_the_operator_s_pod_prints_is_what_doctor_reads() -> None:
    """One process writes it, another one, perhaps of another version, reads it."""
    done = CliRunner().invoke(main, ["answers", "http://127.0.0.1:9"])
    assert reach.from_json(done.stdout)["http://127.0.0.1:9"].status is None
    for nonsense in ("Usage: ...", json.dumps({"a": {"novel": 1}}), json.dumps([1])):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            reach.from_json(nonsense)


@pytest.fixture
async def tracking() -> AsyncIterator[str]:
    """A server with a page an experiment: one is well, one in another store that is gone, one has no runs, one is
    deleted as it is asked for."""
    locations = {
        "1": "mlflow-artifacts:/1",
        "2": "s3://other/2",
        "3": "mlflow-artifacts:/3",
        "4": "mlflow-artifacts:/4",
    }
    runs = {"1": "a", "2": "b"}

    async def experiments(request: web.Request) -> web.Response:
        ids = sorted(locations)
        at = ids.index(request.query.get("page_token", "1"))
        found = [{"experiment_id": ids[at], "artifact_location": locations[ids[at]]}]
        following = {"next_page_token": ids[at + 1]} if at + 1 < len(ids) else {}
        return web.json_response({"experiments": found, **following})

    async def search(request: web.Request) -> web.Response:
        asked = await request.json()
        (experiment,) = asked["experiment_ids"]
        assert (asked["max_results"], asked["order_by"]) == (1, ["attributes.start_time DESC"])
        if experiment == "4":
            return web.json_response({}, status=404)
        place = f"{locations[experiment]}/{runs.get(experiment)}/artifacts"
        found = [{"info": {"run_id": runs[experiment], "artifact_uri": place}}] if experiment in runs else []
        return web.json_response({"runs": found})

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({}, status=500 if request.query["run_id"] == "b" else 200)

    app, api = web.Application(), "/api/2.0/mlflow"
    app.router.add_get(f"{api}/experiments/search", experiments)
    app.router.add_post(f"{api}/runs/search", search)
    app.router.add_get(f"{api}/artifacts/list", listed)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_runs_whose_artifacts_are_gone_are_found(tracking: str) -> None:
    """And what is found is the same in another process."""
    found = await reach.ask([tracking])
    assert found[tracking].roots == Roots(
        2, (LostRoot("b", "s3://other/2/b/artifacts", "status 500"),), (Elsewhere("2", "s3://other/2"),), 1
    )
    assert reach.from_json(reach.as_json(found)) == found
