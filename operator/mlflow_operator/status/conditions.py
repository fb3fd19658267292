"""Types and reasons of the status conditions of an MLflowServer and of an MLflowPlatform.

The message of a condition that is not True states the cause and the next step. A message must not contain a time, a
count that changes by itself or an unsorted list: each change is a write to the API server and an Event.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlflow_operator.api.status import ConditionStatus


class ConditionType(StrEnum):
    """Types of conditions of an MLflowServer, in the order in which a server starts.

    `PLATFORM_CONDITIONS` describes those that an MLflowPlatform has, too.
    """

    READY = "Ready"
    """Every other condition is True, except those of encryption, backups and garbage collection. It repeats the first
    error.
    """
    CREDENTIALS = "CredentialsReady"
    """The Secrets that the spec references exist and are complete, and the operator generated the others."""
    DATABASE = "DatabaseReady"
    """The database accepts connections, has the encoding UTF8, and grants the privileges that MLflow needs."""
    ARTIFACT_STORE = "ArtifactStoreReady"
    """The bucket exists and the server can access it. Stores other than S3 and workload identities are not checked."""
    UPGRADE = "UpgradeReady"
    """The desired version is compatible with the database and the artifact store."""
    SCHEMA = "SchemaReady"
    """The database schema has the revision that the desired version needs."""
    ENCRYPTION = "EncryptionReady"
    """Gateway and webhook secrets in the database are encrypted with the current keys of the server."""
    AUTHENTICATION = "AuthenticationReady"
    """MLflow's tables of users have the revision that the desired version needs, and the administrator can log in with
    the password in the Secret. Set only if `spec.auth` requires authentication."""
    SERVER = "ServerAvailable"
    """All desired MLflow pods are available."""
    BACKUP = "BackupReady"
    """The last backup succeeded and is not older than twice its schedule. Set only if `spec.backup` is set, or was
    taken from a platform."""
    GARBAGE_COLLECTION = "GarbageCollectionReady"
    """The last garbage collection succeeded. Set only if `spec.garbageCollection` is set, or was taken from
    a platform."""


PLATFORM_CONDITIONS: Mapping[ConditionType, str] = {
    ConditionType.READY: (
        "Every other condition is True, and no other default platform selects the same namespace. It repeats the first "
        "error."
    ),
    ConditionType.DATABASE: (
        "The administrator can log in to PostgreSQL and may create roles and databases there. Set only if "
        "`spec.database` is set. The message says if TLS does not verify the host."
    ),
    ConditionType.ARTIFACT_STORE: (
        "The bucket exists and the administrator can list it and use the admin API of MinIO. Set only if "
        "`spec.artifacts` is set. The message says if the endpoint is not encrypted."
    ),
}
"""Meaning of the conditions of an MLflowPlatform."""


class Reason(StrEnum):
    """Reasons of conditions. They are stable: scripts and alerts may rely on them."""

    READY = "Ready"
    """The component is in the desired state."""
    PROGRESSING = "Progressing"
    """The component is not ready yet, but it makes progress and needs no action."""
    SUSPENDED = "Suspended"
    """The server has no pods because `spec.suspend` is true or `spec.replicas` is 0."""
    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    """The component waits for another component, whose own condition reports the cause."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    """A Secret or ConfigMap that the spec references does not exist."""
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    """A referenced Secret or ConfigMap exists but does not contain the referenced key."""
    SECRET_VALUE_INVALID = "SecretValueInvalid"  # noqa: S105
    """A referenced key exists, but its value is not valid for its purpose."""
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    """The database cannot be reached."""
    DATABASE_AUTHENTICATION_FAILED = "DatabaseAuthenticationFailed"
    """The database rejects the user, the password or the database name."""
    DATABASE_ENCODING_UNSUPPORTED = "DatabaseEncodingUnsupported"
    """The encoding of the database is not UTF8."""
    DATABASE_READ_ONLY = "DatabaseReadOnly"
    """The database accepts reads but rejects writes, for example because it is a standby."""
    DATABASE_PRIVILEGE_MISSING = "DatabasePrivilegeMissing"
    """The database user can log in but lacks a privilege to create, alter or read MLflow's tables."""
    DATABASE_LOST = "DatabaseLost"
    """A database that was created for the server and held its data is gone, and is not recreated automatically."""
    DATABASE_VERSION_UNSUPPORTED = "DatabaseVersionUnsupported"
    """The desired major version of the embedded Postgres cannot open the existing volume, and nothing was changed."""
    DATABASE_FULL = "DatabaseFull"
    """The database has no free disk space."""
    BUCKET_NOT_FOUND = "BucketNotFound"
    """The bucket does not exist, and the spec does not allow the operator to create it."""
    BUCKET_ACCESS_DENIED = "BucketAccessDenied"
    """The artifact store rejects the access key, or the access key lacks permissions for the bucket."""
    BUCKET_SETTINGS_REFUSED = "BucketSettingsRefused"
    """The bucket exists, but the desired versioning, encryption or lifecycle settings cannot be applied."""
    ARTIFACT_STORE_UNREACHABLE = "ArtifactStoreUnreachable"
    """The artifact store cannot be reached."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """A node cannot pull an image."""
    MIGRATION_FAILED = "MigrationFailed"
    """The migration Job failed, and the message ends with the last lines of its output."""
    PREFLIGHT_FAILED = "PreflightFailed"
    """The preflight found that the desired image is not compatible, or it had no result, and nothing was changed."""
    SCHEMA_NEWER_THAN_IMAGE = "SchemaNewerThanImage"
    """The schema revision of the database is unknown to the desired image, and nothing was changed."""
    UPGRADE_STRATEGY_REFUSED = "UpgradeStrategyRefused"
    """The strategy is RollingUpdate, but the schema migration requires stopped servers, and nothing was changed."""
    BACKUP_REQUIRED = "BackupRequired"
    """The schema migration is blocked until the required backup exists, and nothing was changed."""
    BACKUP_FAILED = "BackupFailed"
    """The last backup failed, and the message ends with the last lines of its output."""
    BACKUP_STALE = "BackupStale"
    """The last successful backup is older than twice the interval of its schedule."""
    RESTORE_REFUSED = "RestoreRefused"
    """The database already contains data, or the backup is not compatible, and nothing was changed."""
    RESTORE_FAILED = "RestoreFailed"
    """The restore failed and did not change the database, and the message ends with the last lines of its output."""
    GARBAGE_COLLECTION_FAILED = "GarbageCollectionFailed"
    """The last garbage collection failed, and the message ends with the last lines of its output."""
    SERVER_CRASHING = "ServerCrashing"
    """A container terminates repeatedly."""
    UNSCHEDULABLE = "Unschedulable"
    """The scheduler finds no node for a pod."""
    NODE_UNREACHABLE = "NodeUnreachable"
    """A node does not report its state, and a pod on it is not available."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota of the namespace does not allow an object or a pod."""
    VOLUME_PENDING = "VolumePending"
    """A requested volume is not provisioned."""
    VOLUME_LOST = "VolumeLost"
    """A volume of the server is deleted or being deleted, and is not recreated automatically."""
    PROVISIONING_DENIED = "ProvisioningDenied"
    """The operator may not read a Secret of a platform, or an administrator may not create the desired objects."""
    NAME_CONFLICT = "NameConflict"
    """An object with a name that the operator requires exists and does not belong to this server."""
    APPLY_CONFLICT = "ApplyConflict"
    """Another client repeatedly reverts a field that the operator sets."""
    STORAGE_CHANGE_REFUSED = "StorageChangeRefused"
    """The spec or the platform names another database or bucket than the one in use, and the spec does not allow this
    change."""
    ROTATION_IN_PROGRESS = "RotationInProgress"
    """Credentials are being rotated, and the credentials in use remain valid."""
    REENCRYPTION_FAILED = "ReencryptionFailed"
    """The Job that encrypts stored secrets with the current keys failed, and nothing was changed."""
    SECRETS_UNREADABLE = "SecretsUnreadable"
    """Stored gateway or webhook secrets are encrypted with keys that the server does not have."""
    AUTHENTICATION_UNSUPPORTED = "AuthenticationUnsupported"
    """The MLflow version does not support `spec.auth`, and running pods were not changed."""
    ACCOUNTS_FAILED = "AccountsFailed"
    """The Job that prepares MLflow's accounts failed, and the message ends with the last lines of its output."""
    DEFAULT_PLATFORM_CONFLICT = "DefaultPlatformConflict"
    """Several default MLflowPlatforms select the same namespace, none is the default there, and new servers wait."""
    PLATFORM_NOT_FOUND = "PlatformNotFound"
    """The MLflowPlatform that the server uses or requests does not exist or is being deleted, or one that selects its
    namespace is invalid, and nothing was changed.
    """
    PLATFORM_NOT_ALLOWED = "PlatformNotAllowed"
    """The MLflowPlatform does not select the namespace of the server or does not offer the store, and nothing was
    changed."""
    POLICY_VIOLATION = "PolicyViolation"
    """The server violates the policy of an MLflowPlatform that selects its namespace, or needs more database
    connections than its platform allows, and nothing was changed."""
    ADOPTION_REQUIRED = "AdoptionRequired"
    """Data of the server's name on a platform was created in a deleted namespace, or before the server used the
    platform, and `spec.adoptions` does not list the server, or an earlier namespace has used the entry."""
    DELETION_BLOCKED = "DeletionBlocked"
    """The resource is being deleted, but some of the data to delete with it cannot be deleted."""
    INVALID_RESOURCE = "InvalidResource"
    """The stored resource does not conform to the CRD, `spec.envFrom` sets a variable that the operator reserves, or
    `MLFLOW_S3_UPLOAD_EXTRA_ARGS` in `spec.env` has an invalid value."""
    OPERATION_REFUSED = "OperationRefused"
    """The API server rejected an object, or a node rejected a container, and the message contains the response."""


MAX_MESSAGE_CHARS = 8192
"""Maximum length of a published message. The CRD allows 32768 characters: beyond, the status could not be written any
more. Messages quote responses of stores, which may be of any length."""
_TRUNCATED = " [truncated]"


@dataclass(frozen=True)
class Condition:
    """Status condition of a resource. `message` is human-readable."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str

    @property
    def is_true(self) -> bool:
        """Whether the status of the condition is True."""
        return self.status is ConditionStatus.TRUE

    @property
    def published_message(self) -> str:
        """The message as in the status: at most MAX_MESSAGE_CHARS characters."""
        if len(self.message) <= MAX_MESSAGE_CHARS:
            return self.message
        return self.message[: MAX_MESSAGE_CHARS - len(_TRUNCATED)] + _TRUNCATED


def true_condition(condition_type: ConditionType, message: str) -> Condition:
    """Return a condition with status True and reason Ready."""
    return Condition(condition_type, ConditionStatus.TRUE, Reason.READY, message)


def false_condition(condition_type: ConditionType, reason: Reason, message: str) -> Condition:
    """Return a condition with status False."""
    return Condition(condition_type, ConditionStatus.FALSE, reason, message)


def ready_condition(
    conditions: Iterable[Condition],
    ready_message: str = "The server is available and all its dependencies are ready.",
) -> Condition:
    """Return the Ready condition, a summary of the other conditions.

    It takes over the first failure. Conditions that are only progressing or suspended come after failures, and those
    that wait for a dependency come last. Encryption, backups and garbage collection do not count, because a server
    without a recent backup, or with the previous passphrase, still serves requests.
    """
    not_true = [
        condition
        for condition in conditions
        if not condition.is_true and condition.type not in _EXCLUDED_FROM_READY
    ]
    if not not_true:
        return true_condition(ConditionType.READY, ready_message)
    first = min(not_true, key=lambda condition: _REASON_RANK.get(condition.reason, 0))
    return Condition(ConditionType.READY, first.status, first.reason, first.message)


_EXCLUDED_FROM_READY = {ConditionType.ENCRYPTION, ConditionType.BACKUP, ConditionType.GARBAGE_COLLECTION}
_REASON_RANK = {Reason.PROGRESSING: 1, Reason.SUSPENDED: 1, Reason.WAITING_FOR_DEPENDENCY: 2}


def with_transition_times(
    conditions: Iterable[Condition], previous: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """Return the list for `status.conditions`.

    `lastTransitionTime` (RFC 3339) becomes `now` only for a condition whose status differs from `previous`.
    """
    previous_by_type = {str(condition.get("type")): condition for condition in previous}
    return [
        {
            "type": condition.type.value,
            "status": condition.status.value,
            "reason": condition.reason.value,
            "message": condition.published_message,
            "observedGeneration": generation,
            "lastTransitionTime": (
                previous_by_type[condition.type]["lastTransitionTime"]
                if condition.type in previous_by_type
                and previous_by_type[condition.type].get("status") == condition.status.value
                and previous_by_type[condition.type].get("lastTransitionTime")
                else now
            ),
        }
        for condition in conditions
    ]


def changed_conditions(
    conditions: Iterable[Condition], previous: Iterable[Mapping[str, Any]]
) -> list[Condition]:
    """Return the conditions whose status, reason or message differs from `previous`. Each of them gets one Event."""
    previous_by_type = {
        str(condition.get("type")): (
            condition.get("status"),
            condition.get("reason"),
            condition.get("message"),
        )
        for condition in previous
    }
    return [
        condition
        for condition in conditions
        if previous_by_type.get(condition.type)
        != (condition.status.value, condition.reason.value, condition.published_message)
    ]
