"""CronJobs: what is done again and again beside a server."""

from dataclasses import dataclass

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.jobs import single_attempt


@dataclass(frozen=True)
class Timing:
    """When, as `CronJob` has it, and whether not at all for now."""

    schedule: str
    time_zone: str
    paused: bool


def cronjob(meta: Object, timing: Timing, seconds: int, template: Object) -> Object:
    """Runs the pods of `template`, one at a time, each for `seconds` at most; `meta` as `core.meta` makes it.

    Its Jobs carry the labels of what the operator made, so those are seen that somebody begins by hand, too
    (`kubectl create job --from=cronjob/...`).
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": meta,
        "spec": {
            "schedule": timing.schedule,
            "timeZone": timing.time_zone,
            "suspend": timing.paused,
            "concurrencyPolicy": "Forbid",
            # one that was missed for long, as while the cluster was down, is not made up for hours later
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 2,
            "failedJobsHistoryLimit": 2,
            "jobTemplate": {
                "metadata": {"labels": meta["labels"]},
                "spec": single_attempt(seconds, template),
            },
        },
    }
