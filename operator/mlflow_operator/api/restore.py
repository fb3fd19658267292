"""A server that begins with what a backup holds: `spec.restoreFrom`."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.backup import BackupStore
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, matches
from mlflow_operator.api.string_types import ImageReference, NamespaceName


class RestoreFrom(Model):
    """A backup that a new server begins with, while its database is empty. It may be taken away later, and neither be
    added nor changed.
    """

    backup: Annotated[
        str,
        Field(max_length=64),
        matches(
            r"latest|[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}",
            "is no backup: write latest, or an id as status.backup.lastID has it, such as 20261224T020000Z-0a1b2c3d",
        ),
    ] = "latest"
    """Id of the backup, as `status.backup.lastID` told it; or `latest`, the newest that is whole."""
    server_name: Annotated[
        str,
        Field(max_length=40),
        matches(
            r"[a-z]([a-z0-9-]*[a-z0-9])?",
            "is no name of an MLflowServer: use lower-case letters, digits and '-'",
        ),
    ]
    """Name of the MLflowServer whose backup it is. It need not exist any more."""
    namespace: NamespaceName | None = None
    """Namespace of that server when it was backed up. Absent: the one of this server."""
    image: ImageReference | None = None
    """Image with `pg_restore` and `psql`, of at least the major version of the `pg_dump` that made the backup. Absent:
    that of the embedded database, else the Postgres that the operator is tested with.
    """
    s3: BackupStore | None = None
    """Where the backup is. Absent: in this server's own artifact store."""


RESTORE_RULES = (
    Rule(
        "!has(self.restoreFrom) || (has(oldSelf.restoreFrom) && self.restoreFrom == oldSelf.restoreFrom)",
        "spec.restoreFrom is for a new server alone and can't be added or changed: put back what was there, or take it "
        "away; to restore another backup, make another server",
        field=".restoreFrom",
    ),
    Rule(
        "!has(self.restoreFrom) || has(self.restoreFrom.s3) || !has(self.artifacts) || "
        "!has(self.artifacts.external)",
        "spec.restoreFrom takes a backup out of an S3 store, and spec.artifacts.external is none: name the bucket in "
        "spec.restoreFrom.s3",
        field=".restoreFrom",
        holds=lambda spec: (
            not spec.restore_from or spec.restore_from.s3 is not None or not spec.artifacts.external
        ),
    ),
)
"""Of the spec as a whole."""
