"""`status.backup` and the messages of the condition BackupReady."""

from datetime import timedelta

from mlflow_operator.components.backup.result import BackupError, BackupResult, CompletedBackup
from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Backup, Server
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    false_condition,
    true_condition,
)

_TYPE = ConditionType.BACKUP


def with_success(status: Object, backup: CompletedBackup) -> Object:
    """`status.backup` after a successful backup. A backup that is older than the recorded one changes nothing."""
    if str(status.get("lastSuccessTime") or "") >= backup.completion_time:
        return status
    return status | {
        "lastID": backup.id,
        "lastURI": backup.uri,
        "lastSuccessTime": backup.completion_time,
        "lastSizeBytes": backup.size_bytes,
    }


def with_failure(status: Object, failed_at: str) -> Object:
    """`status.backup` after a backup that failed at `failed_at` (RFC 3339)."""
    return status | {"lastFailureTime": max(str(status.get("lastFailureTime") or ""), failed_at)}


def last_failed(status: Object) -> bool:
    """Whether the backup that finished last failed."""
    return str(status.get("lastFailureTime") or "") > str(status.get("lastSuccessTime") or "")


def is_stale(status: Object, created_at: str | None, longest_gap: timedelta, now: str) -> bool:
    """Whether the last successful backup is older than twice `longest_gap`, the longest time between two backups.

    `created_at`: creation time of the CronJob, used if there is no backup yet. Times are RFC 3339.
    """
    last_success = status.get("lastSuccessTime") or created_at or now
    return timestamps.parse(now) - timestamps.parse(last_success) > 2 * longest_gap


def condition(server: Server, backup: Backup, status: Object, stale: bool) -> Condition:
    """The condition if the last backup did not fail."""
    last_success = status.get("lastSuccessTime")
    if stale:
        fact = "The last successful backup is older than" if last_success else "No backup was made within"
        return false_condition(
            _TYPE,
            Reason.BACKUP_STALE,
            f'{fact} twice the interval of spec.backup.schedule ("{backup.schedule}"). Check the CronJob and its Jobs: '
            f"kubectl describe cronjob,job -n {server.owner.namespace} "
            f"-l mlflow-operator.dev/server={server.owner.name}. {manual_run_hint(server)}",
        )
    if last_success is None:
        return false_condition(
            _TYPE,
            Reason.PROGRESSING,
            f"Waiting for the first backup of spec.backup.schedule. {manual_run_hint(server)}",
        )
    return true_condition(_TYPE, f"The last backup is {status.get('lastURI')}.")


def manual_run_hint(server: Server) -> str:
    """The command that starts a backup now, as the end of a message."""
    name = server.names.backup
    return f"To start a backup now: kubectl create job -n {server.owner.namespace} --from=cronjob/{name} {name}-manual"


def failure_message(
    server: Server, backup: Backup, job: str, result: BackupResult | None, termination_message: str | None
) -> str:
    """Why the Job `job` made no backup. `termination_message` is quoted if the Job has no readable result."""
    logs = f"kubectl logs -n {server.owner.namespace} job/{job} --all-containers"
    if result and result.errors:
        cause = f"{_error_message(backup, result.errors[0])} "
    else:
        lines = message_text.last_lines(termination_message)
        cause = (
            f"It has no readable result. Its last lines: {lines}\n"
            if lines
            else "It has no readable result. "
        )
    return f'The backup Job "{job}" failed. {cause}Earlier backups are unchanged. All log lines: {logs}.'


_ERROR_MESSAGES = {
    "version": (
        "The pg_dump of {image} is older than the database server: {message}. Set spec.backup.image to an image of at "
        "least the database's major version."
    ),
    "no_tables": "The database holds no MLflow tables, and an empty backup is not stored.",
    "database": "The backup cannot use the database: {message}. See the condition DatabaseReady.",
    "store": (
        "The backup store refused a request or did not answer: {message}. Check the bucket, its access key and its "
        "policy."
    ),
    "schema_changed": (
        "The schema was migrated during the backup ({message}). The dump was deleted because it fits neither revision."
    ),
    "unknown_revision": (
        "Its image does not know the database's schema, and the backup would be incomplete: {message}. If the server "
        "was upgraded meanwhile, the next backup uses the new version; otherwise set spec.version to the version that "
        "migrated the schema."
    ),
    "start_timeout": (
        "{message}. Check that the image {image} starts, and that no other session locks the tables."
    ),
    "interrupted": "The pod was terminated because its node was drained or because the Job exceeded its deadline.",
}


def _error_message(backup: Backup, error: BackupError) -> str:
    template = _ERROR_MESSAGES.get(error.code, "pg_dump failed: {message}.")
    message = message_text.strip_volatile(error.message).strip().rstrip(".")
    return template.format(image=backup.image, message=message)
