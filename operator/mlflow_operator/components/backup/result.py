"""Termination message of a backup pod. Parsing is strict: an unreadable message does not count as a backup."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from mlflow_operator.model.termination_message import StrictModel, parse_message

Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,1024}$")]
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
BackupID = Annotated[str, Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-f]{8}$")]


class _CamelCaseModel(StrictModel):
    model_config = ConfigDict(alias_generator=to_camel)


class BackupError(_CamelCaseModel):
    """Error code and error message."""

    code: Line
    message: str


class CompletedBackup(_CamelCaseModel):
    """A complete backup, stored at `uri`."""

    id: BackupID
    uri: Line
    size_bytes: Annotated[int, Field(gt=0)]
    schema_revision: str
    start_time: Timestamp
    completion_time: Timestamp


class BackupResult(_CamelCaseModel):
    """Result of one backup pod.

    Without a backup, `errors` say why. With a backup, `errors` are about the deletion of older backups after it.
    """

    backup: CompletedBackup | None
    errors: tuple[BackupError, ...]


def parse(text: str | None) -> BackupResult | None:
    """Parse a termination message; None if it is not exactly a result."""
    result = parse_message(BackupResult, text)
    return result if result and (result.backup or result.errors) else None
