"""The clean-up: a CronJob that removes for good what was deleted long ago, and what it says of that."""

import json
from typing import Annotated, Literal

from pydantic import Field

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cronjobs, jobs, pod_template
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import GarbageCollection, Server
from mlflow_operator.model.termination_message import JobError, StrictModel, Word, read

SETTINGS = "MLFLOW_OPERATOR_GARBAGE_COLLECTION"
"""Where the payload finds what it is asked for."""

_SECONDS = 6 * 3600
"""It says itself what was left when its time is up, and goes on there the next time."""

Count = Annotated[int, Field(ge=0, lt=2**31)]


def cronjob(server: Server, wanted: GarbageCollection, *, paused: bool) -> Object:
    """Runs the server's own image, in the environment that the server has."""
    name, component = server.names.garbage_collection, labels.GARBAGE_COLLECTION_POD
    asked = {
        "mode": "DryRun" if wanted.dry_run else "Delete",
        "olderThanSeconds": wanted.seconds,
        "experimentIDs": list(wanted.experiments),
        "tracesOlderThanSeconds": wanted.traces_seconds,
    }
    # artifacts that clients reach by the server alone it removes by the server, too
    env = [
        pod_template.value("MLFLOW_TRACKING_URI", server.url),
        pod_template.value(SETTINGS, json.dumps(asked, sort_keys=True)),
    ]
    changed = {
        "name": "garbage-collection",
        "command": ["python3", "-u", "-c", pod_scripts.GARBAGE_COLLECTION],
    }
    template = jobs.from_server_pod(server, component, changed, env)
    timing = cronjobs.Timing(wanted.schedule, wanted.time_zone, paused)
    return cronjobs.cronjob(object_metadata(server.owner, name, component), timing, _SECONDS, template)


class CollectionResult(StrictModel):
    """What came of one round: counts of what was removed (or would be, in a dry run), of what was kept because it is
    still of use, of what could not be removed; and what this MLflow has no way to remove."""

    mode: Literal["Delete", "DryRun"]
    version: Word | None
    runs: Count
    models: Count
    experiments: Count
    traces: Count
    kept: Count
    failed: Count
    missing: tuple[Word, ...]
    faults: tuple[JobError, ...]

    @property
    def status(self) -> Object:
        """What `status.garbageCollection` says of it beside the time."""
        real = self.mode == "Delete"
        return {
            "mode": self.mode,
            "deletedRuns": self.runs if real else 0,
            "deletedModels": self.models if real else 0,
            "deletedExperiments": self.experiments if real else 0,
            "deletedTraces": self.traces if real else 0,
        }

    def news(self, namespace: str, job: str) -> str:
        """What an Event says of it."""
        told = (
            counted(self.runs, "run"),
            counted(self.models, "model"),
            counted(self.experiments, "experiment"),
            counted(self.traces, "trace"),
        )
        what = f"{', '.join(told[:-1])} and {told[-1]}"
        log = f"kubectl logs -n {namespace} job/{job}"
        said = f"Removed for good: {what}." if self.mode == "Delete" else f"Would be removed: {what}."
        if self.kept:
            said += f" Kept, for they are still of use: {self.kept}."
        if self.missing:
            said += f" MLflow {self.version} has no way to remove {' and '.join(self.missing)}."
        return f"{said} The list: {log}"


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def parse(text: str | None) -> CollectionResult | None:
    """The answer in a container's last words; None for anything that is not just that."""
    return read(CollectionResult, text)
