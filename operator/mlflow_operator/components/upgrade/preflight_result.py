"""Termination message of a preflight pod. Parsing is strict: an unreadable message never allows an upgrade."""

from enum import StrEnum

from mlflow_operator.model.termination_message import JobError, ShortText, StrictModel, parse_message


class SchemaChange(StrEnum):
    """The schema change that an image needs. UNKNOWN: the image does not know the revision of the database."""

    NONE = "none"
    FORWARD = "forward"
    UNKNOWN = "unknown"


class PreflightResult(StrictModel):
    """Result of the preflight.

    `version` is the MLflow version in the image, `revision` the one of the database (None: it has no schema), `head`
    the head revision of the image's migrations, `steps` the number of migrations to run. A value is also None if the
    preflight could not determine it; `errors` then say why.
    """

    version: ShortText | None
    revision: ShortText | None
    head: ShortText | None
    change: SchemaChange | None
    steps: int | None
    errors: tuple[JobError, ...]

    @property
    def is_consistent(self) -> bool:
        """Whether all values are known and do not contradict each other."""
        if self.version is None or self.head is None:
            return False
        match self.change:
            case SchemaChange.NONE:
                return self.revision == self.head and self.steps == 0
            case SchemaChange.FORWARD:
                return self.revision != self.head and (self.steps or 0) > 0
            case SchemaChange.UNKNOWN:
                return self.revision is not None and self.steps is None
        return False


def parse(text: str | None) -> PreflightResult | None:
    """Parse a termination message; None if it is not exactly a result."""
    result = parse_message(PreflightResult, text)
    return result if result and (result.errors or result.is_consistent) else None
