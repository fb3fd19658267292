"""Asks servers' URLs as a client would, from where this process runs."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import aiohttp

from mlflow_operator.doctor import artifact_roots
from mlflow_operator.doctor.seen import Elsewhere, LostRoot, ProbeResult, Roots

PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
"""Reads from the database, and is refused under a name that the server does not know; /health is and does neither."""

FOREIGN = b"Invalid Host header"
SECONDS = 10.0
LONGEST = SECONDS + artifact_roots.SECONDS
"""Seconds for one server, its artifacts included."""

_AT_ONCE = 8


async def ask(urls: Iterable[str]) -> dict[str, ProbeResult]:
    """How each of the URLs answers; takes no longer than LONGEST for each eight of them."""
    wanted = tuple(dict.fromkeys(urls))
    room = asyncio.Semaphore(_AT_ONCE)
    # of this process' own: no proxy of the environment stands between a client in the cluster and a server in it
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session:

        async def one(url: str) -> ProbeResult:
            async with room:
                answer = await _answer(session, url)
                if answer.status != 200:
                    return answer
                return replace(answer, roots=await artifact_roots.look(session, url))

        return dict(zip(wanted, await asyncio.gather(*(one(url) for url in wanted)), strict=True))


async def _answer(session: aiohttp.ClientSession, url: str) -> ProbeResult:
    try:
        async with session.get(url + PATH, allow_redirects=False) as answer:
            return judged(answer.status, await answer.content.read(1024))
    except TimeoutError:
        return ProbeResult(None, f"none within {SECONDS:g} s")
    except aiohttp.ClientConnectorDNSError:
        return ProbeResult(None, "its name is not known here")
    except aiohttp.ClientConnectorError:
        return ProbeResult(None, "the connection is refused, or there is no way there")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return ProbeResult(None, f"the connection broke ({type(error).__name__})")


def judged(status: int, beginning: bytes) -> ProbeResult:
    """What an answer with this status and this beginning is."""
    return ProbeResult(status, foreign=status == 403 and FOREIGN in beginning)


def as_json(answers: dict[str, ProbeResult]) -> str:
    """For another process."""
    return json.dumps({url: asdict(answer) for url, answer in answers.items()})


def from_json(text: str) -> dict[str, ProbeResult]:
    """What `as_json` wrote. ValueError, TypeError, AttributeError: something else did."""
    return {str(url): _read(answer) for url, answer in json.loads(text).items()}


def _read(answer: dict[str, Any]) -> ProbeResult:
    roots = answer.pop("roots", None)
    if roots is None:
        return ProbeResult(**answer)
    lost = tuple(LostRoot(**each) for each in roots["lost"])
    elsewhere = tuple(Elsewhere(**each) for each in roots["elsewhere"])
    return ProbeResult(
        **answer, roots=Roots(int(roots["looked"]), lost, elsewhere, int(roots.get("unasked", 0)))
    )
