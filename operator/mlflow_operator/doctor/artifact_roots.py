"""Asks a server whether the places are there in which runs keep their artifacts, as a client would ask it.

MLflow gives each run a place below its experiment's, which can't be changed: the youngest run of an experiment speaks
for all of that experiment.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from mlflow_operator.doctor.seen import Elsewhere, LostRoot, Roots

AT_ONCE = 4
"""Experiments: so many that a server has other things to do, too."""

PAGE = 1000
SECONDS = 20.0
"""For all experiments of a server together; those left then are counted."""

_ENDS = 1.0
_API = "/api/2.0/mlflow"
_BY_THE_SERVER = "mlflow-artifacts:"


_NO_ANSWER = (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class _Youngest:
    """Of one experiment: whether it has a run, and what is wrong with the place of the youngest."""

    there: bool
    lost: LostRoot | None = None


async def look(session: aiohttp.ClientSession, url: str) -> Roots | None:
    """What came of each experiment's youngest run; None where there is none, or the server would not tell."""
    api, room = url + _API, asyncio.Semaphore(AT_ONCE)
    places: list[Elsewhere] = []
    asked: list[asyncio.Task[_Youngest | None]] = []
    try:
        async with asyncio.timeout(SECONDS) as limit:
            async for experiment, location in _experiments(session, api):
                places.append(Elsewhere(experiment, location))
                asked.append(asyncio.create_task(_one(session, api, experiment, room)))
            left = (limit.when() or 0.0) - asyncio.get_running_loop().time()
            if asked:
                await asyncio.wait(asked, timeout=left - _ENDS)
    except _NO_ANSWER:
        return None
    finally:
        for task in asked:
            task.cancel()
    return _summed(places, asked)


def _summed(places: list[Elsewhere], asked: list[asyncio.Task[_Youngest | None]]) -> Roots | None:
    done = (task.result() for task in asked if task.done() and not task.cancelled())
    told = [each for each in done if each is not None]
    own = tuple(each for each in places if not each.location.startswith(_BY_THE_SERVER))
    looked = sum(each.there for each in told)
    lost = tuple(each.lost for each in told if each.lost)
    return Roots(looked, lost, own, len(asked) - len(told)) if looked or own else None


async def _experiments(session: aiohttp.ClientSession, api: str) -> AsyncIterator[tuple[str, str]]:
    """Id and location of each."""
    page = {"max_results": str(PAGE)}
    while True:
        async with session.get(f"{api}/experiments/search", params=page) as answer:
            found = await _content(answer)
        for each in found.get("experiments") or []:
            yield each["experiment_id"], each["artifact_location"]
        if not found.get("next_page_token"):
            return
        page["page_token"] = found["next_page_token"]


async def _one(
    session: aiohttp.ClientSession, api: str, experiment: str, room: asyncio.Semaphore
) -> _Youngest | None:
    """None where the server would not tell."""
    youngest = {
        "experiment_ids": [experiment],
        "order_by": ["attributes.start_time DESC"],
        "max_results": 1,
    }
    async with room:
        try:
            async with session.post(f"{api}/runs/search", json=youngest) as answer:
                runs = [each["info"] for each in (await _content(answer)).get("runs") or []]
            if not runs:
                return _Youngest(there=False)
            return _Youngest(
                there=True, lost=await _lost(session, api, runs[0]["run_id"], runs[0]["artifact_uri"])
            )
        except _NO_ANSWER:
            return None


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
