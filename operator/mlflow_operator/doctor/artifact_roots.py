"""Check through a server's API whether the artifacts of its runs can be listed.

MLflow stores the artifacts of a run below the artifact location of its experiment, which cannot be changed: the latest
run represents all runs of an experiment.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from mlflow_operator.doctor.observed import ArtifactRoots, ExperimentLocation, UnreadableArtifacts

MAX_CONCURRENT_EXPERIMENTS = 4
"""A low number, so that the server can still serve other requests."""

PAGE_SIZE = 1000
TIMEOUT_SECONDS = 20.0
"""Timeout for all experiments of a server together. Experiments that were not checked by then are counted."""

_SUMMARY_SECONDS = 1.0
_API = "/api/2.0/mlflow"
_PROXIED_SCHEME = "mlflow-artifacts:"


_REQUEST_ERRORS = (
    TimeoutError,
    aiohttp.ClientError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True)
class _LatestRun:
    """Whether an experiment has a run, and the error of its latest run if its artifacts cannot be listed."""

    exists: bool
    unreadable: UnreadableArtifacts | None = None


async def check_artifact_roots(session: aiohttp.ClientSession, url: str) -> ArtifactRoots | None:
    """Check the latest run of each experiment. None if there are no runs or the server does not respond."""
    api, semaphore = url + _API, asyncio.Semaphore(MAX_CONCURRENT_EXPERIMENTS)
    locations: list[ExperimentLocation] = []
    tasks: list[asyncio.Task[_LatestRun | None]] = []
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS) as deadline:
            async for experiment, location in _experiments(session, api):
                locations.append(ExperimentLocation(experiment, location))
                tasks.append(asyncio.create_task(_check_latest_run(session, api, experiment, semaphore)))
            remaining_seconds = (deadline.when() or 0.0) - asyncio.get_running_loop().time()
            if tasks:
                await asyncio.wait(tasks, timeout=remaining_seconds - _SUMMARY_SECONDS)
    except _REQUEST_ERRORS:
        return None
    finally:
        for task in tasks:
            task.cancel()
    return _summarize(locations, tasks)


def _summarize(
    locations: list[ExperimentLocation], tasks: list[asyncio.Task[_LatestRun | None]]
) -> ArtifactRoots | None:
    results = (task.result() for task in tasks if task.done() and not task.cancelled())
    latest_runs = [result for result in results if result is not None]
    not_proxied = tuple(
        location for location in locations if not location.location.startswith(_PROXIED_SCHEME)
    )
    checked = sum(run.exists for run in latest_runs)
    unreadable = tuple(run.unreadable for run in latest_runs if run.unreadable)
    if not checked and not not_proxied:
        return None
    return ArtifactRoots(checked, unreadable, not_proxied, len(tasks) - len(latest_runs))


async def _experiments(session: aiohttp.ClientSession, api: str) -> AsyncIterator[tuple[str, str]]:
    """Iterate over the ID and artifact location of all experiments."""
    params = {"max_results": str(PAGE_SIZE)}
    while True:
        async with session.get(f"{api}/experiments/search", params=params) as response:
            content = await _json_content(response)
        for experiment in content.get("experiments") or []:
            yield experiment["experiment_id"], experiment["artifact_location"]
        if not content.get("next_page_token"):
            return
        params["page_token"] = content["next_page_token"]


async def _check_latest_run(
    session: aiohttp.ClientSession, api: str, experiment: str, semaphore: asyncio.Semaphore
) -> _LatestRun | None:
    """None if the server does not respond."""
    query = {
        "experiment_ids": [experiment],
        "order_by": ["attributes.start_time DESC"],
        "max_results": 1,
    }
    async with semaphore:
        try:
            async with session.post(f"{api}/runs/search", json=query) as response:
                runs = [run["info"] for run in (await _json_content(response)).get("runs") or []]
            if not runs:
                return _LatestRun(exists=False)
            return _LatestRun(
                exists=True,
                unreadable=await _list_artifacts(session, api, runs[0]["run_id"], runs[0]["artifact_uri"]),
            )
        except _REQUEST_ERRORS:
            return None


async def _list_artifacts(
    session: aiohttp.ClientSession, api: str, run: str, location: str
) -> UnreadableArtifacts | None:
    """Return the error if the artifacts of a run cannot be listed. An empty list is not an error."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS / 2):
            async with session.get(f"{api}/artifacts/list", params={"run_id": run}) as response:
                return (
                    None
                    if response.status < 400
                    else UnreadableArtifacts(run, location, f"status {response.status}")
                )
    except TimeoutError:
        return UnreadableArtifacts(run, location, "timeout")


async def _json_content(response: aiohttp.ClientResponse) -> dict[str, Any]:
    response.raise_for_status()
    content: dict[str, Any] = await response.json(content_type=None)
    return content
