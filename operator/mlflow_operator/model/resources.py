"""Memory and CPU that fit the number of workers, so that the defaults never meet the OOM killer.

MLflow 3.17.2 with job execution off takes 421, 617 and 964 MB with 1, 2 and 4 workers (proportional set size, at
rest), and 217, 336 and 396 MB where it is imported once and its workers are copies that have answered some hundred
requests; job execution adds eight processes and about 1.3 GB. Requests stand a little above that; limits leave room for
uploads in flight, the same either way. There is no CPU limit: throttling at start costs more than it saves.
"""

from mlflow_operator.kube.objects import Object

_BASE_MIB, _WORKER_MIB, _JOBS_MIB = 320, 192, 1408
_ONCE_MIB, _COPY_MIB = 192, 80
_LIMIT_FACTOR = 1.75


def server(workers: int, job_execution: bool, once: bool = False) -> Object:
    """Resource requirements of a server pod.

    `once`: MLflow is imported once for all its workers, which it never is with job execution.
    """
    most = _BASE_MIB + _WORKER_MIB * workers + (_JOBS_MIB if job_execution else 0)
    request = _ONCE_MIB + _COPY_MIB * workers if once and not job_execution else most
    return {
        "requests": {"cpu": f"{50 + 25 * workers}m", "memory": f"{request}Mi"},
        "limits": {"memory": f"{int(most * _LIMIT_FACTOR)}Mi"},
    }


def migration() -> Object:
    """Resource requirements of a migration or preflight Job: one process that imports MLflow (about 250 MB)."""
    return {"requests": {"cpu": "50m", "memory": "384Mi"}, "limits": {"memory": "1Gi"}}


def backup() -> Object:
    """Resource requirements of each of the two containers that stream a backup: parts of 16 MiB are what they hold."""
    return {"requests": {"cpu": "25m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def postgres() -> Object:
    """Resource requirements of the embedded database at its default settings."""
    return {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


def artifact_store() -> Object:
    """Resource requirements of the embedded artifact store, whichever engine it runs."""
    return {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
