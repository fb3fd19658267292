"""Conditions: what the user reads first when something is wrong.

A condition that is not True names the cause and the next step in one message. Messages hold no time, no count
that moves by itself and no unsorted list: each difference is a write to the API server and an Event.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ConditionType(StrEnum):
    """What a condition speaks of, in the order in which a server comes up."""

    READY = "Ready"
    CREDENTIALS = "CredentialsReady"
    DATABASE = "DatabaseReady"
    ARTIFACT_STORE = "ArtifactStoreReady"
    UPGRADE = "UpgradeReady"
    SCHEMA = "SchemaReady"
    SERVER = "ServerAvailable"
    BACKUP = "BackupReady"
    GARBAGE_COLLECTION = "GarbageCollectionReady"


class Reason(StrEnum):
    """Why a condition is as it is; each a stable word that scripts and alerts may rely on."""

    READY = "Ready"
    """All is as asked."""
    PROGRESSING = "Progressing"
    """On its way; nothing to do but wait."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true, or `spec.replicas` 0: no server pods by intent."""
    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    """Something this part needs is not ready; its own condition says what."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    """A Secret or ConfigMap that the spec names does not exist."""
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    """The object exists, the key in it does not."""
    SECRET_VALUE_INVALID = "SecretValueInvalid"  # noqa: S105
    """The key exists, but what it holds can't be what was meant."""
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    """No connection to the database."""
    DATABASE_AUTHENTICATION_FAILED = "DatabaseAuthenticationFailed"
    """The database refused the user, the password or the database's name."""
    DATABASE_ENCODING_UNSUPPORTED = "DatabaseEncodingUnsupported"
    """The database is not UTF8."""
    DATABASE_READ_ONLY = "DatabaseReadOnly"
    """The database lets itself be read and nothing be written: a standby, say."""
    DATABASE_PRIVILEGE_MISSING = "DatabasePrivilegeMissing"
    """The database lets the user in, but not make, change or read MLflow's tables."""
    DATABASE_LOST = "DatabaseLost"
    """A database that was made for the server, and held its data, is gone; nothing is made in its place by itself."""
    DATABASE_VERSION_UNSUPPORTED = "DatabaseVersionUnsupported"
    """The embedded Postgres is to become another major version, which can't open the volume; nothing was touched."""
    DATABASE_FULL = "DatabaseFull"
    """The database has no room left on its disk."""
    BUCKET_NOT_FOUND = "BucketNotFound"
    """The bucket does not exist and is not to be made."""
    BUCKET_ACCESS_DENIED = "BucketAccessDenied"
    """The artifact store refused the key, or the key may not use the bucket."""
    BUCKET_SETTINGS_REFUSED = "BucketSettingsRefused"
    """The bucket is there, and not to be versioned, encrypted or cleared as the spec asks."""
    ARTIFACT_STORE_UNREACHABLE = "ArtifactStoreUnreachable"
    """No connection to the artifact store."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """A node can't pull an image."""
    MIGRATION_FAILED = "MigrationFailed"
    """The migration Job failed; the message ends with its last lines."""
    PREFLIGHT_FAILED = "PreflightFailed"
    """The image asked for can't take over here, or did not say that it can; nothing was touched."""
    SCHEMA_NEWER_THAN_IMAGE = "SchemaNewerThanImage"
    """The database stands at a revision that the image asked for does not know; nothing was touched."""
    BACKUP_REQUIRED = "BackupRequired"
    """The schema is not moved before a backup is made; nothing was touched."""
    BACKUP_FAILED = "BackupFailed"
    """The last backup failed; the message ends with its last lines."""
    BACKUP_STALE = "BackupStale"
    """The last good backup is older than twice its schedule."""
    RESTORE_REFUSED = "RestoreRefused"
    """The database holds data already, or the backup does not fit; nothing was touched."""
    RESTORE_FAILED = "RestoreFailed"
    """The restore failed, and left the database as it was; the message ends with its last lines."""
    GARBAGE_COLLECTION_FAILED = "GarbageCollectionFailed"
    """The last removal of what was deleted failed; the message ends with its last lines."""
    SERVER_CRASHING = "ServerCrashing"
    """A container ends again and again."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes a pod."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's quota forbids an object or a pod."""
    VOLUME_PENDING = "VolumePending"
    """A volume that was asked for is not made."""
    VOLUME_LOST = "VolumeLost"
    """A volume of ours is gone, or being deleted; nothing is made in its place by itself."""
    PROVISIONING_DENIED = "ProvisioningDenied"
    """An admin Secret is not to be used from here, or its user may not make what is asked for."""
    NAME_CONFLICT = "NameConflict"
    """An object of a name we need belongs to somebody else."""
    APPLY_CONFLICT = "ApplyConflict"
    """Somebody else keeps changing the same field back."""
    STORAGE_CHANGE_REFUSED = "StorageChangeRefused"
    """The spec asks for another database or bucket than the one in use, without leave."""
    ROTATION_IN_PROGRESS = "RotationInProgress"
    """Credentials are being replaced; what is in use works all the while."""
    DELETION_BLOCKED = "DeletionBlocked"
    """The resource is being deleted, and some of the data that is to go with it can't be."""
    INVALID_RESOURCE = "InvalidResource"
    """The stored resource does not fit the CRD, or what `spec.envFrom` names would not."""
    OPERATION_REFUSED = "OperationRefused"
    """The API server refused an object; the message holds its sentence."""


class State(StrEnum):
    """The three values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Condition:
    """One statement about a server; `message` is a sentence for people."""

    type: ConditionType
    status: State
    reason: Reason
    message: str

    @property
    def is_true(self) -> bool:
        """Whether what it speaks of is as asked."""
        return self.status is State.TRUE


def true_condition(kind: ConditionType, message: str) -> Condition:
    """`kind` is as asked."""
    return Condition(kind, State.TRUE, Reason.READY, message)


def false_condition(kind: ConditionType, reason: Reason, message: str) -> Condition:
    """`kind` is not as asked."""
    return Condition(kind, State.FALSE, reason, message)


def ready_condition(conditions: Iterable[Condition]) -> Condition:
    """`Ready`, from the others: the first fault speaks; what merely waits speaks only if nothing else does.

    A server without a fresh backup serves all the same: what is done beside it does not count.
    """
    faults = [c for c in conditions if not c.is_true and c.type not in _BESIDE]
    if not faults:
        return true_condition(ConditionType.READY, "The server answers and all it needs is ready.")
    first = min(faults, key=lambda c: _RANK.get(c.reason, 0))
    return Condition(ConditionType.READY, first.status, first.reason, first.message)


_BESIDE = {ConditionType.BACKUP, ConditionType.GARBAGE_COLLECTION}
_RANK = {Reason.PROGRESSING: 1, Reason.SUSPENDED: 1, Reason.WAITING_FOR_DEPENDENCY: 2}


def with_transition_times(
    conditions: Iterable[Condition], before: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """The list for `status.conditions`.

    `lastTransitionTime` (RFC 3339) moves to `now` only where a condition's status differs from `before`.
    """
    old = {str(c.get("type")): c for c in before}
    return [
        {
            "type": c.type.value,
            "status": c.status.value,
            "reason": c.reason.value,
            "message": c.message,
            "observedGeneration": generation,
            "lastTransitionTime": (
                old[c.type]["lastTransitionTime"]
                if c.type in old
                and old[c.type].get("status") == c.status.value
                and old[c.type].get("lastTransitionTime")
                else now
            ),
        }
        for c in conditions
    ]


def changed(conditions: Iterable[Condition], before: Iterable[Mapping[str, Any]]) -> list[Condition]:
    """Those that say something new: each is worth one Event."""
    old = {str(c.get("type")): (c.get("status"), c.get("reason"), c.get("message")) for c in before}
    return [c for c in conditions if old.get(c.type) != (c.status.value, c.reason.value, c.message)]
