"""What a preflight answered: read strictly, for what can't be read must never count as leave to go on."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LONGEST = 3072
"""Bytes; the payload stays below, and whatever is longer is not its."""

Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,200}$")]


class Movement(StrEnum):
    """How far the schema has to move for an image."""

    NONE = "none"
    FORWARD = "forward"
    UNKNOWN = "unknown"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Trouble(_Strict):
    """One thing at fault: of which kind, and what was said of it."""

    kind: Word
    said: str


class Answer(_Strict):
    """`version` is the image's own, `revision` the database's (None: it holds no schema), `head` where the image's
    migrations end, `steps` how many of them are to be done. None is also what could not be found out; then there
    are `faults`.
    """

    version: Word | None
    revision: Word | None
    head: Word | None
    movement: Movement | None
    steps: int | None
    faults: tuple[Trouble, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is left open, and what is said fits together."""
        if self.version is None or self.head is None:
            return False
        match self.movement:
            case Movement.NONE:
                return self.revision == self.head and self.steps == 0
            case Movement.FORWARD:
                return self.revision != self.head and (self.steps or 0) > 0
            case Movement.UNKNOWN:
                return self.revision is not None and self.steps is None
        return False


def parse(text: str | None) -> Answer | None:
    """The answer in a container's last words; None for anything that is not just that."""
    if not text or len(text.encode()) > LONGEST:
        return None
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError:
        return None
    return answer if answer.faults or answer.whole else None
