"""CronJobs of a server."""

from dataclasses import dataclass

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.jobs import single_attempt, template_digest

_KEPT_SECONDS = 7 * 24 * 3600
"""Seconds after which Kubernetes deletes a finished Job with its pod. The history limits do not apply to Jobs that
users create from the CronJob, and the operator reads all Jobs and pods in each reconcile."""


@dataclass(frozen=True)
class CronSchedule:
    """Schedule of a CronJob, and whether the CronJob is suspended."""

    schedule: str
    time_zone: str
    suspended: bool


def cronjob(meta: Object, schedule: CronSchedule, deadline_seconds: int, template: Object) -> Object:
    """Run a pod of `template` on schedule: one at a time, each for at most `deadline_seconds`.

    `meta` is the result of `object_metadata`. The Jobs get its labels, so that the operator also sees a Job that a user
    creates (`kubectl create job --from=cronjob/...`).
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": meta,
        "spec": {
            "schedule": schedule.schedule,
            "timeZone": schedule.time_zone,
            "suspend": schedule.suspended,
            "concurrencyPolicy": "Forbid",
            # A run that was missed for longer, for example during an outage of the cluster, is skipped.
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 2,
            "failedJobsHistoryLimit": 2,
            "jobTemplate": {
                "metadata": {
                    "labels": meta["labels"],
                    "annotations": {labels.TEMPLATE_DIGEST: template_digest(template)},
                },
                "spec": single_attempt(deadline_seconds, template)
                | {"ttlSecondsAfterFinished": _KEPT_SECONDS},
            },
        },
    }
