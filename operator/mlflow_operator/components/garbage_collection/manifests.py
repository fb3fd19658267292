"""Manifest of the garbage collection CronJob, and the termination message of its pods."""

import json
from typing import Annotated

from pydantic import Field

from mlflow_operator import pod_scripts
from mlflow_operator.api.garbage_collection import GarbageCollectionMode
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, container_parts, cronjobs, jobs
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import GarbageCollection, Server
from mlflow_operator.model.termination_message import JobError, ShortText, StrictModel, parse_message
from mlflow_operator.status.message_text import pluralize

SETTINGS_VARIABLE = "MLFLOW_OPERATOR_GARBAGE_COLLECTION"
"""Environment variable with the settings of the script, as JSON."""

_TIMEOUT_SECONDS = 6 * 3600
"""When it is exceeded, the script reports what is left; the next run continues there."""

Count = Annotated[int, Field(ge=0, lt=2**31)]


def cronjob(server: Server, settings: GarbageCollection, *, paused: bool) -> Object:
    """CronJob that runs the server's image in the server's environment."""
    name, component = server.names.garbage_collection, labels.GARBAGE_COLLECTION_POD
    job_settings = {
        "mode": "DryRun" if settings.dry_run else "Delete",
        "olderThanSeconds": settings.older_than_seconds,
        "experimentIDs": list(settings.experiments),
        "tracesOlderThanSeconds": settings.traces_older_than_seconds,
    }
    # Artifacts that clients reach only through the server are deleted through the server, too.
    env = [
        container_parts.env_value("MLFLOW_TRACKING_URI", server.url),
        *authentication.client_env(server),
        container_parts.env_value(SETTINGS_VARIABLE, json.dumps(job_settings, sort_keys=True)),
    ]
    overrides = {
        "name": "garbage-collection",
        "command": ["python3", "-u", "-c", pod_scripts.GARBAGE_COLLECTION],
    }
    template = jobs.from_server_pod(server, component, overrides, env)
    schedule = cronjobs.CronSchedule(settings.schedule, settings.time_zone, paused)
    meta = object_metadata(server.owner, name, component)
    return cronjobs.cronjob(meta, schedule, _TIMEOUT_SECONDS, template)


class CollectionResult(StrictModel):
    """Result of one run.

    `runs`, `models`, `experiments`, `traces`: number of deleted objects; in a dry run, of those that would be deleted.
    `kept`: number of objects that are still in use. `failed`: number of objects that could not be deleted.
    `unsupported`: object types that this MLflow version cannot delete.
    """

    mode: GarbageCollectionMode
    version: ShortText | None
    runs: Count
    models: Count
    experiments: Count
    traces: Count
    kept: Count
    failed: Count
    unsupported: tuple[ShortText, ...]
    errors: tuple[JobError, ...]

    @property
    def status(self) -> Object:
        """The fields of `status.garbageCollection`, without the times."""
        deleted = self.mode is GarbageCollectionMode.DELETE
        return {
            "mode": self.mode.value,
            "deletedRuns": self.runs if deleted else 0,
            "deletedModels": self.models if deleted else 0,
            "deletedExperiments": self.experiments if deleted else 0,
            "deletedTraces": self.traces if deleted else 0,
        }

    def event_message(self, namespace: str, job: str) -> str:
        """Message of the Event about this run."""
        counts = (
            pluralize(self.runs, "run"),
            pluralize(self.models, "model"),
            pluralize(self.experiments, "experiment"),
            pluralize(self.traces, "trace"),
        )
        objects = f"{', '.join(counts[:-1])} and {counts[-1]}"
        log = f"kubectl logs -n {namespace} job/{job}"
        message = (
            f"Permanently deleted: {objects}."
            if self.mode is GarbageCollectionMode.DELETE
            else f"Would delete: {objects}."
        )
        if self.kept:
            message += f" Kept because they are still in use: {self.kept}."
        if self.unsupported:
            message += f" MLflow {self.version} cannot delete {' and '.join(self.unsupported)}."
        return f"{message} For the list, run: {log}"


def parse(text: str | None) -> CollectionResult | None:
    """Parse a termination message; None if it is not exactly a result."""
    return parse_message(CollectionResult, text)
