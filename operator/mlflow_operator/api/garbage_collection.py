"""Garbage collection of deleted runs, models and experiments, and of old traces: `spec.garbageCollection`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.duration import Duration
from mlflow_operator.api.markers import ListSet
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import matches
from mlflow_operator.api.schedule import Schedule, TimeZone


class GarbageCollectionMode(StrEnum):
    """Whether garbage collection deletes anything."""

    DELETE = "Delete"
    DRY_RUN = "DryRun"


ExperimentID = Annotated[
    str,
    Field(max_length=32),
    matches(
        r"[0-9]+",
        "is not a valid experiment ID: use the number in the URL of the experiment's page, not the name",
    ),
]


class TraceRetention(Model):
    """Retention of traces, including traces that are not deleted."""

    older_than: Annotated[Duration | None, Field(examples=["2160h"])] = None
    """Age after which traces are deleted permanently, counted from their start, such as `2160h` for 90 days. If not
    set, traces are kept.
    """


class GarbageCollection(Model):
    """Garbage collection of runs, models and experiments that users deleted, and of old traces, including their
    artifacts. MLflow itself only marks runs, models and experiments as deleted.
    """

    schedule: Schedule = "0 3 * * 0"
    """Cron schedule of garbage collection: five fields, or a macro such as @daily. Defaults to Sundays at 03:00."""
    time_zone: TimeZone = "Etc/UTC"
    """Time zone of the schedule, such as `Europe/Berlin`. Defaults to Etc/UTC."""
    older_than: Duration = "720h"
    """Time after which runs, models and experiments that a user deleted are removed permanently. Until then they can be
    restored. Defaults to 720h.
    """
    experiment_ids: Annotated[
        tuple[ExperimentID, ...],
        Field(alias="experimentIDs", max_length=100, examples=[["12", "34"]]),
        ListSet(),
    ] = ()
    """IDs of the experiments to which garbage collection is limited. Defaults to all experiments."""
    mode: GarbageCollectionMode = GarbageCollectionMode.DELETE
    """Whether garbage collection deletes anything. Delete: it does. DryRun: nothing is deleted, and the log of the Job
    lists what would be deleted. Defaults to Delete.
    """
    traces: TraceRetention = TraceRetention()
    """Retention of traces, including traces that are not deleted."""
