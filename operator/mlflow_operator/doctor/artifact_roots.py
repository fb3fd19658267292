"""Asks a server whether the places are there in which runs keep their artifacts, as a client would ask it."""

import asyncio
from typing import Any

import aiohttp

from mlflow_operator.doctor.seen import Elsewhere, LostRoot, Roots

LOOKED_AT = 20
"""Runs: the youngest ones. Each costs the store a request."""

EXPERIMENTS = 1000
SECONDS = 20.0
_API = "/api/2.0/mlflow"
_BY_THE_SERVER = "mlflow-artifacts:"


async def look(session: aiohttp.ClientSession, url: str) -> Roots | None:
    """What came of the youngest runs; None where there is none, or the server would not tell."""
    try:
        async with asyncio.timeout(SECONDS):
            return await _look(session, url + _API)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


async def _look(session: aiohttp.ClientSession, api: str) -> Roots | None:
    async with session.get(f"{api}/experiments/search?max_results={EXPERIMENTS}") as answer:
        experiments = (await _content(answer)).get("experiments") or []
    if not experiments:
        return None
    asked = {
        "experiment_ids": [each["experiment_id"] for each in experiments],
        "order_by": ["attributes.start_time DESC"],
        "max_results": LOOKED_AT,
    }
    async with session.post(f"{api}/runs/search", json=asked) as answer:
        runs = [each["info"] for each in (await _content(answer)).get("runs") or []]
    lost = await asyncio.gather(*(_lost(session, api, run["run_id"], run["artifact_uri"]) for run in runs))
    places = [Elsewhere(each["experiment_id"], each["artifact_location"]) for each in experiments]
    own = tuple(each for each in places if not each.location.startswith(_BY_THE_SERVER))
    return Roots(len(runs), tuple(filter(None, lost)), own) if runs or own else None


async def _lost(session: aiohttp.ClientSession, api: str, run: str, place: str) -> LostRoot | None:
    """What is wrong with the place of a run; None where its files can be listed, be there none."""
    try:
        async with asyncio.timeout(SECONDS / 2):
            async with session.get(f"{api}/artifacts/list", params={"run_id": run}) as answer:
                return None if answer.status < 400 else LostRoot(run, place, f"status {answer.status}")
    except TimeoutError:
        return LostRoot(run, place, "no answer in time")


async def _content(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    answer.raise_for_status()
    found: dict[str, Any] = await answer.json(content_type=None)
    return found
