"""Structured results in termination messages of containers. Messages with other content are ignored."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_BYTES = 3072
"""Maximum size of a termination message. The scripts write less; a longer message is not from them."""

ShortText = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,200}$")]


class StrictModel(BaseModel):
    """Base class that rejects unknown fields and other types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class JobError(StrictModel):
    """An error that a Job reports."""

    code: ShortText
    message: str


ModelT = TypeVar("ModelT", bound=StrictModel)


def parse_message(model: type[ModelT], text: str | None) -> ModelT | None:
    """Parse the result in a termination message; None if it is anything else."""
    if not text or len(text.encode()) > MAX_BYTES:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError:
        return None
