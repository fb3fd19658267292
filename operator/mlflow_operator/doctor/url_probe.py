"""Send requests to the URLs of servers like a client, from this process."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import aiohttp

from mlflow_operator.doctor import artifact_roots
from mlflow_operator.doctor.observed import (
    ArtifactRoots,
    ExperimentLocation,
    ProbeResult,
    UnreadableArtifacts,
)

PROBE_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
"""It reads from the database, and MLflow rejects it if the Host header is not allowed. /health does neither."""

INVALID_HOST_MESSAGE = b"Invalid Host header"
REQUEST_TIMEOUT_SECONDS = 10.0
SERVER_TIMEOUT_SECONDS = REQUEST_TIMEOUT_SECONDS + artifact_roots.TIMEOUT_SECONDS
"""Timeout for one server, including its artifacts."""

_MAX_CONCURRENT_PROBES = 8


async def probe_urls(
    urls: Iterable[str], timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
) -> dict[str, ProbeResult]:
    """Probe the URLs. By default, it takes at most SERVER_TIMEOUT_SECONDS for every eight of them."""
    unique_urls = tuple(dict.fromkeys(urls))
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT_PROBES)
    # A new session ignores proxies in the environment: in the cluster, clients do not use one either.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_seconds)) as session:

        async def probe_with_limit(url: str) -> ProbeResult:
            async with semaphore:
                result = await _probe(session, url)
                if result.status != 200:
                    return result
                roots = await artifact_roots.check_artifact_roots(session, url)
                return replace(result, artifact_roots=roots)

        results = await asyncio.gather(*(probe_with_limit(url) for url in unique_urls))
        return dict(zip(unique_urls, results, strict=True))


async def _probe(session: aiohttp.ClientSession, url: str) -> ProbeResult:
    try:
        async with session.get(url + PROBE_PATH, allow_redirects=False) as response:
            return to_probe_result(response.status, await response.content.read(1024))
    except TimeoutError:
        return ProbeResult(None, f"timeout after {session.timeout.total:g} s")
    except aiohttp.ClientConnectorDNSError:
        return ProbeResult(None, "the host name cannot be resolved")
    except aiohttp.ClientConnectorError:
        return ProbeResult(None, "connection refused, or no route to the host")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return ProbeResult(None, f"connection error ({type(error).__name__})")


def to_probe_result(status: int, body_start: bytes) -> ProbeResult:
    """Build the result for a status code and the start of the response body."""
    return ProbeResult(status, host_rejected=status == 403 and INVALID_HOST_MESSAGE in body_start)


def as_json(results: dict[str, ProbeResult]) -> str:
    """Serialize results for another process."""
    return json.dumps({url: asdict(result) for url, result in results.items()})


def from_json(text: str) -> dict[str, ProbeResult]:
    """Parse the output of `as_json`. Raises ValueError, TypeError or AttributeError for anything else."""
    return {str(url): _probe_result_from_json(fields) for url, fields in json.loads(text).items()}


def _probe_result_from_json(fields: dict[str, Any]) -> ProbeResult:
    roots = fields.pop("artifact_roots", None)
    if roots is None:
        return ProbeResult(**fields)
    unreadable = tuple(UnreadableArtifacts(**artifacts) for artifacts in roots["unreadable"])
    not_proxied = tuple(ExperimentLocation(**location) for location in roots["not_proxied"])
    return ProbeResult(
        **fields,
        artifact_roots=ArtifactRoots(
            int(roots["checked"]), unreadable, not_proxied, int(roots.get("unchecked", 0))
        ),
    )
