"""Default requests and limits for memory and CPU. They depend on the workers, so that the server is not OOMKilled.

With MLflow 3.17.2 and job execution disabled, 1, 2 and 4 workers use 421, 617 and 964 MB (proportional set size, idle).
With the fast path, where MLflow is imported once and the workers are forked, they use 217, 336 and 396 MB after some
hundred requests. Job execution adds eight processes and about 1.3 GB. The requests are slightly above these values. The
limits leave room for uploads in progress, which need the same with and without the fast path. There is no CPU limit:
throttling at startup costs more than it saves.
"""

from collections.abc import Mapping
from decimal import ROUND_UP, Decimal

from mlflow_operator.kube import quantity
from mlflow_operator.kube.objects import Object

_BASE_MIB, _WORKER_MIB, _JOBS_MIB = 320, 192, 1408
_FAST_PATH_BASE_MIB, _FAST_PATH_WORKER_MIB = 192, 80
_LIMIT_FACTOR = 1.75

_JOB_CPU_LIMIT = "1"
"""CPU limit of a container of a Job, if the server has a CPU limit. It starts Python within seconds."""

_UNITS = {"cpu": ("m", Decimal("0.001")), "memory": ("Mi", Decimal(1024**2))}
"""Unit of a computed quantity, and its size in base units."""


def server(workers: int, job_execution: bool, fast_path: bool = False) -> Object:
    """Resources of a server pod.

    `fast_path`: MLflow is imported once for all workers. With job execution it has no effect: MLflow is then never
    imported once only.
    """
    full_mib = _BASE_MIB + _WORKER_MIB * workers + (_JOBS_MIB if job_execution else 0)
    request_mib = (
        _FAST_PATH_BASE_MIB + _FAST_PATH_WORKER_MIB * workers if fast_path and not job_execution else full_mib
    )
    return {
        "requests": {"cpu": f"{50 + 25 * workers}m", "memory": f"{request_mib}Mi"},
        "limits": {"memory": f"{int(full_mib * _LIMIT_FACTOR)}Mi"},
    }


def migration() -> Object:
    """Resources of a migration or preflight Job: one process that imports MLflow (about 250 MB)."""
    return {"requests": {"cpu": "50m", "memory": "384Mi"}, "limits": {"memory": "1Gi"}}


def backup() -> Object:
    """Resources of each of the two containers that stream a backup. They buffer parts of 16 MiB."""
    return {"requests": {"cpu": "25m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def postgres() -> Object:
    """Resources of the embedded database with its default settings."""
    return {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


def artifact_store() -> Object:
    """Resources of the embedded artifact store, for both engines."""
    return {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}


def derived(default: Object, server: Object) -> Object:
    """Resources of a container of a Job, so that it fits where the server fits. `server` is `spec.resources`.

    A ResourceQuota requires limits of all pods or of none, and a LimitRange has a maximum for limits, and for the ratio
    of limit and request. Therefore the Job has a limit if the server has one, it is not higher, and neither is the
    ratio. Without `spec.resources` the cluster requires nothing, and the result is `default`.
    """
    if not server:
        return default
    requests: Object = dict(default["requests"])
    limits: Object = {}
    for name in _UNITS:
        server_limit = _get(server, "limits", name)
        server_request = _get(server, "requests", name)
        if server_limit is None:
            requests[name] = _smallest(requests[name], server_request)
            continue
        cap = _get(default, "limits", name) or _JOB_CPU_LIMIT
        limits[name] = _smallest(cap, server_limit)
        requests[name] = _smallest(requests[name], server_request, limits[name])
        minimum = _request_for_ratio(limits[name], server_limit, server_request)
        if minimum > quantity.parse(requests[name]):
            requests[name] = _smallest(_format(minimum, name), limits[name])
    for amounts, field in ((requests, "requests"), (limits, "limits")):
        storage = _get(server, field, "ephemeral-storage")
        if storage is not None:
            amounts["ephemeral-storage"] = storage
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def _request_for_ratio(limit: str, server_limit: str, server_request: str | None) -> Decimal:
    """The smallest request with at most the server's ratio of limit and request. A missing request is the limit."""
    request, server_value = quantity.parse(server_request or server_limit), quantity.parse(server_limit)
    return quantity.parse(limit) * request / server_value if server_value else Decimal(0)


def _smallest(*amounts: str | None) -> str:
    return min((amount for amount in amounts if amount is not None), key=quantity.parse)


def _format(amount: Decimal, name: str) -> str:
    unit, size = _UNITS[name]
    return f"{(amount / size).quantize(Decimal(1), ROUND_UP)}{unit}"


def _get(resources: Mapping[str, Mapping[str, str | int]], field: str, name: str) -> str | None:
    amount = (resources.get(field) or {}).get(name)
    return None if amount is None else str(amount)
