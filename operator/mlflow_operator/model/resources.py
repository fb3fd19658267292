"""Default requests and limits for memory and CPU. They depend on the workers, so that the server is not OOMKilled.

With MLflow 3.17.2 and job execution disabled, 1, 2 and 4 workers use 421, 617 and 964 MB (proportional set size, idle).
With the fast path, where MLflow is imported once and the workers are forked, they use 217, 336 and 396 MB after some
hundred requests. Job execution adds eight processes and about 1.3 GB. The requests are slightly above these values. The
limits leave room for uploads in progress, which need the same with and without the fast path. There is no CPU limit:
throttling at startup costs more than it saves.
"""

from mlflow_operator.kube.objects import Object

_BASE_MIB, _WORKER_MIB, _JOBS_MIB = 320, 192, 1408
_FAST_PATH_BASE_MIB, _FAST_PATH_WORKER_MIB = 192, 80
_LIMIT_FACTOR = 1.75


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
