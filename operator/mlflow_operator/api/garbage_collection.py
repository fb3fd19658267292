"""What is removed for good, and when: `spec.garbageCollection`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.duration import Duration
from mlflow_operator.api.markers import ListSet
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import matches
from mlflow_operator.api.schedule import Schedule, TimeZone


class CollectionMode(StrEnum):
    """Whether anything is removed."""

    DELETE = "Delete"
    DRY_RUN = "DryRun"


ExperimentID = Annotated[
    str,
    Field(max_length=32),
    matches(r"[0-9]+", "is no experiment's id: write the number that the page's address has, not the name"),
]


class TraceRetention(Model):
    """How long traces are kept, deleted or not."""

    older_than: Duration | None = None
    """Traces that began longer ago than this, such as `2160h`, are removed. Absent: traces are kept for good."""


class GarbageCollection(Model):
    """Removes for good what was deleted long ago, files included. Until then MLflow only hides it."""

    schedule: Schedule = "0 3 * * 0"
    """When, as for cron: five fields, or @daily and the like. The default is Sunday night at three."""
    time_zone: TimeZone = "Etc/UTC"
    """The time zone of the schedule, such as `Europe/Berlin`."""
    older_than: Duration = "720h"
    """Runs, models and experiments go this long after somebody deleted them; until then they can be had back."""
    experiment_ids: Annotated[
        tuple[ExperimentID, ...], Field(alias="experimentIDs", max_length=100), ListSet()
    ] = ()
    """Only what belongs to these experiments. Empty: all of them."""
    mode: CollectionMode = CollectionMode.DELETE
    """DryRun: nothing is removed; the log of the Job lists what would be."""
    traces: TraceRetention = TraceRetention()
    """How long traces are kept, deleted or not."""
