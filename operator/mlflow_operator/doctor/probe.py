"""Send requests to every server like a client, in the cluster and through the API server's proxy."""

import asyncio
import shlex
from collections.abc import Iterable
from dataclasses import replace

from mlflow_operator.doctor import url_probe
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import Operator, ProbeResult, Server
from mlflow_operator.kube.client import ClusterError, Forbidden
from mlflow_operator.kube.readonly_client import ReadOnlyClient
from mlflow_operator.status.conditions import Reason

PROBE_COMMAND = ("mlflow-operator", "probe-urls")
"""Command to run in the operator's pod, followed by the URLs. It prints the result of `url_probe.as_json`."""

_START_TIMEOUT_SECONDS = 60.0
"""Additional time for the start of Python in a pod with half a CPU."""


async def probe_servers(
    client: ReadOnlyClient,
    servers: tuple[Server, ...],
    operators: tuple[Operator, ...] | Unobserved,
    in_cluster: bool,
) -> tuple[Server, ...]:
    """Return the servers with their probe results. Suspended servers and those without a URL are returned unchanged."""
    probeable = [server for server in servers if _url(server) and not _suspended(server)]
    if in_cluster:
        results: dict[str, ProbeResult] | Unobserved = await url_probe.probe_urls(map(_url, probeable))
        proxy_results: list[ProbeResult | Unobserved | None] = [None] * len(probeable)
        source = "from this pod"
    else:
        results, proxy_results = await asyncio.gather(
            _probe_from_operator_pod(client, probeable, operators),
            asyncio.gather(*(_probe_through_proxy(client, server) for server in probeable)),
        )
        source = "from the operator's pod"
    probed = {
        server.subject: replace(
            server,
            in_cluster=results if isinstance(results, Unobserved) else results.get(_url(server)),
            through_proxy=proxy_result,
            in_cluster_source=source,
        )
        for server, proxy_result in zip(probeable, proxy_results, strict=True)
    }
    return tuple(probed.get(server.subject, server) for server in servers)


def _url(server: Server) -> str:
    return str((server.resource.get("status") or {}).get("url") or "")


def _suspended(server: Server) -> bool:
    conditions = (server.resource.get("status") or {}).get("conditions") or ()
    return any(condition.get("reason") == Reason.SUSPENDED for condition in conditions)


async def _probe_through_proxy(client: ReadOnlyClient, server: Server) -> ProbeResult | Unobserved:
    name = server.resource["metadata"]["name"]
    try:
        return url_probe.to_probe_result(
            *await client.get_through_service(server.namespace, name, "http", url_probe.PROBE_PATH)
        )
    except Forbidden:
        return Unobserved(f"this account is not allowed to get services/proxy in {server.namespace}.")
    except ClusterError as error:
        return ProbeResult(None, str(error).rstrip("."))


async def _probe_from_operator_pod(
    client: ReadOnlyClient, servers: list[Server], operators: tuple[Operator, ...] | Unobserved
) -> dict[str, ProbeResult] | Unobserved:
    location = (
        _running_operator_pod() if isinstance(operators, Unobserved) else _running_operator_pod(operators)
    )
    if not servers:
        return {}
    if location is None:
        return Unobserved("no operator pod is running, or this account cannot list them.")
    namespace, pod, container = location
    urls = tuple(map(_url, servers))
    timeout_seconds = _START_TIMEOUT_SECONDS + url_probe.SERVER_TIMEOUT_SECONDS * (1 + len(urls) // 8)
    try:
        return url_probe.from_json(
            await client.exec(namespace, pod, container, (*PROBE_COMMAND, *urls), timeout_seconds)
        )
    except Forbidden:
        return Unobserved(f"this account is not allowed to create pods/exec in {namespace}.")
    except (ClusterError, ValueError, TypeError, AttributeError):
        return Unobserved(
            f"this command failed: kubectl exec -n {namespace} {pod} -- {shlex.join(PROBE_COMMAND)}"
        )


def _running_operator_pod(operators: Iterable[Operator] = ()) -> tuple[str, str, str] | None:
    """Namespace, name and container of a running operator pod."""
    for operator in operators:
        for pod in operator.pods:
            for container in (pod.get("status") or {}).get("containerStatuses") or ():
                if "running" in (container.get("state") or {}):
                    return operator.namespace, pod["metadata"]["name"], container["name"]
    return None
