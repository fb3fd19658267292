"""What a preflight answered: read strictly, for what can't be read must never count as leave to go on."""

from enum import StrEnum

from mlflow_operator.model.termination_message import JobError, StrictModel, Word, read


class SchemaChange(StrEnum):
    """How far the schema has to move for an image."""

    NONE = "none"
    FORWARD = "forward"
    UNKNOWN = "unknown"


class PreflightResult(StrictModel):
    """`version` is the image's own, `revision` the database's (None: it holds no schema), `head` where the image's
    migrations end, `steps` how many of them are to be done. None is also what could not be found out; then there
    are `faults`.
    """

    version: Word | None
    revision: Word | None
    head: Word | None
    movement: SchemaChange | None
    steps: int | None
    faults: tuple[JobError, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is left open, and what is said fits together."""
        if self.version is None or self.head is None:
            return False
        match self.movement:
            case SchemaChange.NONE:
                return self.revision == self.head and self.steps == 0
            case SchemaChange.FORWARD:
                return self.revision != self.head and (self.steps or 0) > 0
            case SchemaChange.UNKNOWN:
                return self.revision is not None and self.steps is None
        return False


def parse(text: str | None) -> PreflightResult | None:
    """The answer in a container's last words; None for anything that is not just that."""
    answer = read(PreflightResult, text)
    return answer if answer and (answer.faults or answer.whole) else None
