"""Restore of a backup into a new server: `spec.restoreFrom`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.backup import BackupStore
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, matches
from mlflow_operator.api.string_types import ImageReference, NamespaceName


class MissingKeyPolicy(StrEnum):
    """What happens if the server does not have the encryption keys of a backup."""

    REFUSE = "Refuse"
    IGNORE = "Ignore"


class RestoreFrom(Model):
    """Backup that is restored into a new server, whose database has no tables of MLflow. It can be removed later, but
    not added or changed.
    """

    backup: Annotated[
        str,
        Field(max_length=64),
        matches(
            r"latest|[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}",
            "is not a valid backup ID: use latest, or an ID from status.backup.lastID, such as "
            "20261224T020000Z-0a1b2c3d",
        ),
    ] = "latest"
    """ID of the backup, from `status.backup.lastID` of the server that created it, or `latest` for the newest complete
    backup. Defaults to latest.
    """
    server_name: Annotated[
        str,
        Field(max_length=40),
        matches(
            r"[a-z]([a-z0-9-]*[a-z0-9])?",
            "is not a valid MLflowServer name: use lower-case letters, digits and '-'",
        ),
    ]
    """Name of the MLflowServer that created the backup. It need not exist any more."""
    namespace: Annotated[NamespaceName | None, Field(examples=["team-a"])] = None
    """Namespace of that MLflowServer when it created the backup. Defaults to the namespace of this server."""
    image: Annotated[ImageReference | None, Field(examples=["registry.example.com/postgres:17"])] = None
    """Image with `pg_restore` and `psql` of at least the major version of the `pg_dump` that created the backup.
    Defaults to the image of the embedded database, or the PostgreSQL image that the operator is tested with.
    """
    s3: BackupStore | None = None
    """Bucket that contains the backup. Defaults to the artifact store of this server."""
    missing_key_policy: MissingKeyPolicy = MissingKeyPolicy.REFUSE
    """What happens if the backup contains gateway or webhook secrets and this server does not have the keys that they
    are encrypted with. Refuse: nothing is restored. Ignore: the backup is restored, and these secrets are unreadable.
    Defaults to Refuse.
    """


RESTORE_RULES = (
    Rule(
        "!has(self.restoreFrom) || (has(oldSelf.restoreFrom) && self.restoreFrom == oldSelf.restoreFrom)",
        "spec.restoreFrom must not be added or changed after creation: restore the previous value or remove it; to "
        "restore another backup, create another server",
        field=".restoreFrom",
    ),
    Rule(
        "!has(self.restoreFrom) || has(self.restoreFrom.s3) || !has(self.artifacts) || "
        "!has(self.artifacts.external)",
        "spec.restoreFrom requires an S3 store, and spec.artifacts.external is not S3: set the bucket in "
        "spec.restoreFrom.s3",
        field=".restoreFrom",
        holds=lambda spec: (
            not spec.restore_from or spec.restore_from.s3 is not None or not spec.artifacts.external
        ),
    ),
)
"""Rules for the spec as a whole."""
