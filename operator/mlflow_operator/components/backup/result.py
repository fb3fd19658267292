"""What a backup answered: read strictly, for what can't be read is no backup."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from mlflow_operator.model.termination_message import StrictModel, read

Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,1024}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
ID = Annotated[str, Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-f]{8}$")]


class _Camel(StrictModel):
    model_config = ConfigDict(alias_generator=to_camel)


class BackupError(_Camel):
    """What went wrong: of which kind, and what was said of it."""

    kind: Word
    said: str


class CompletedBackup(_Camel):
    """A backup that is whole, at `uri`."""

    id: ID
    uri: Word
    size_bytes: Annotated[int, Field(gt=0)]
    schema_revision: str
    start_time: Time
    completion_time: Time


class BackupResult(_Camel):
    """Without a backup there are faults; beside one they are about what was to be cleared away after it."""

    backup: CompletedBackup | None
    faults: tuple[BackupError, ...]


def parse(text: str | None) -> BackupResult | None:
    """The answer in a container's last words; None for anything that is not just that."""
    answer = read(BackupResult, text)
    return answer if answer and (answer.backup or answer.faults) else None
