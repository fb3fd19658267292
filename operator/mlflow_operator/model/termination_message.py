"""What a container answers by its last words: read strictly, for what can't be read is no answer."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_BYTES = 3072
"""Bytes; the payloads stay below, and whatever is longer is not theirs."""

Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,200}$")]


class StrictModel(BaseModel):
    """Holds what is said and nothing beside it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class JobError(StrictModel):
    """One thing at fault: of which kind, and what was said of it."""

    kind: Word
    said: str


A = TypeVar("A", bound=StrictModel)


def read(answer: type[A], text: str | None) -> A | None:
    """The answer in a container's last words; None for anything that is not just that."""
    if not text or len(text.encode()) > MAX_BYTES:
        return None
    try:
        return answer.model_validate_json(text)
    except ValidationError:
        return None
