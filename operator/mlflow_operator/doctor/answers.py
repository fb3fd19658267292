"""Has every server asked as a client would ask it, in the cluster and outside of it."""

import asyncio
import shlex
from collections.abc import Iterable
from dataclasses import replace

from mlflow_operator.doctor import reach
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.seen import Operator, ProbeResult, Server
from mlflow_operator.kube.client import ClusterError, Forbidden
from mlflow_operator.kube.readonly_client import ReadOnlyClient
from mlflow_operator.status.conditions import Reason

COMMAND = ("mlflow-operator", "answers")
"""What the operator's pod is told to run, followed by URLs; it prints what `reach.as_json` writes."""

_START_SECONDS = 60.0
"""For Python to start in a pod that may take half a core."""


async def asked(
    onlooker: ReadOnlyClient,
    servers: tuple[Server, ...],
    operators: tuple[Operator, ...] | Unobserved,
    within: bool,
) -> tuple[Server, ...]:
    """The servers with their answers; those that are suspended, or have no address yet, as they are."""
    able = [server for server in servers if _url(server) and not _suspended(server)]
    if within:
        found: dict[str, ProbeResult] | Unobserved = await reach.ask(map(_url, able))
        outside: list[ProbeResult | Unobserved | None] = [None] * len(able)
        way = "asked from this pod"
    else:
        found, outside = await asyncio.gather(
            _from_operator(onlooker, able, operators),
            asyncio.gather(*(_through_proxy(onlooker, server) for server in able)),
        )
        way = "asked from the operator's pod"
    done = {
        server.subject: replace(
            server,
            inside=found if isinstance(found, Unobserved) else found.get(_url(server)),
            outside=answer,
            inside_way=way,
        )
        for server, answer in zip(able, outside, strict=True)
    }
    return tuple(done.get(server.subject, server) for server in servers)


def _url(server: Server) -> str:
    return str((server.resource.get("status") or {}).get("url") or "")


def _suspended(server: Server) -> bool:
    conditions = (server.resource.get("status") or {}).get("conditions") or ()
    return any(condition.get("reason") == Reason.SUSPENDED for condition in conditions)


async def _through_proxy(onlooker: ReadOnlyClient, server: Server) -> ProbeResult | Unobserved:
    name = server.resource["metadata"]["name"]
    try:
        return reach.judged(*await onlooker.get_through_service(server.namespace, name, "http", reach.PATH))
    except Forbidden:
        return Unobserved(f"this account may not get services/proxy in {server.namespace}.")
    except ClusterError as error:
        return ProbeResult(None, str(error).rstrip("."))


async def _from_operator(
    onlooker: ReadOnlyClient, servers: list[Server], operators: tuple[Operator, ...] | Unobserved
) -> dict[str, ProbeResult] | Unobserved:
    found = _pod() if isinstance(operators, Unobserved) else _pod(operators)
    if not servers:
        return {}
    if found is None:
        return Unobserved("no pod of an operator runs, or none can be seen from here.")
    namespace, pod, container = found
    urls = tuple(map(_url, servers))
    seconds = _START_SECONDS + reach.LONGEST * (1 + len(urls) // 8)
    try:
        return reach.from_json(await onlooker.exec(namespace, pod, container, (*COMMAND, *urls), seconds))
    except Forbidden:
        return Unobserved(f"this account may not create pods/exec in {namespace}.")
    except (ClusterError, ValueError, TypeError, AttributeError):
        return Unobserved(f"this does not work: kubectl exec -n {namespace} {pod} -- {shlex.join(COMMAND)}")


def _pod(operators: Iterable[Operator] = ()) -> tuple[str, str, str] | None:
    """A pod of an operator that runs: namespace, name, container."""
    for operator in operators:
        for pod in operator.pods:
            for container in (pod.get("status") or {}).get("containerStatuses") or ():
                if "running" in (container.get("state") or {}):
                    return operator.namespace, pod["metadata"]["name"], container["name"]
    return None
