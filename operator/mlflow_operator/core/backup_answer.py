"""What a backup answered: read strictly, for what can't be read is no backup."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

LONGEST = 3072
"""Bytes; the payload stays below, and whatever is longer is not its."""

Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,1024}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
ID = Annotated[str, Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-f]{8}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


class Trouble(_Strict):
    """What went wrong: of which kind, and what was said of it."""

    kind: Word
    said: str


class Made(_Strict):
    """A backup that is whole, at `uri`."""

    id: ID
    uri: Word
    size_bytes: Annotated[int, Field(gt=0)]
    schema_revision: str
    start_time: Time
    completion_time: Time


class Answer(_Strict):
    """Without a backup there are faults; beside one they are about what was to be cleared away after it."""

    backup: Made | None
    faults: tuple[Trouble, ...]


def parse(text: str | None) -> Answer | None:
    """The answer in a container's last words; None for anything that is not just that."""
    if not text or len(text.encode()) > LONGEST:
        return None
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError:
        return None
    return answer if answer.backup or answer.faults else None
