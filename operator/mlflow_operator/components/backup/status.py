"""What is known of a server's backups, and what is to be said of them."""

from datetime import datetime, timedelta

from mlflow_operator.components.backup.result import BackupError, BackupResult, CompletedBackup
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


def with_success(told: Object, made: CompletedBackup) -> Object:
    """`status.backup` after a good backup; one that is older than the last one changes nothing."""
    if str(told.get("lastSuccessTime") or "") >= made.completion_time:
        return told
    return told | {
        "lastID": made.id,
        "lastURI": made.uri,
        "lastSuccessTime": made.completion_time,
        "lastSizeBytes": made.size_bytes,
    }


def with_failure(told: Object, at: str) -> Object:
    """`status.backup` after one that failed at that time (RFC 3339)."""
    return told | {"lastFailureTime": max(str(told.get("lastFailureTime") or ""), at)}


def failed(told: Object) -> bool:
    """Whether the last one that ended failed."""
    return str(told.get("lastFailureTime") or "") > str(told.get("lastSuccessTime") or "")


def late(told: Object, since: str | None, gap: timedelta, now: str) -> bool:
    """Whether the last good backup is too old. `since` is when the CronJob was made, `gap` the longest time between two
    backups. Times are RFC 3339.
    """
    return time(now) - time(told.get("lastSuccessTime") or since or now) > 2 * gap


def judged(server: Server, backup: Backup, told: Object, stale: bool) -> Condition:
    """What is to be said where no backup has failed of late."""
    last = told.get("lastSuccessTime")
    if stale:
        old = "The last good backup is older than twice" if last else "No backup was made within twice"
        return false_condition(
            _TYPE,
            Reason.BACKUP_STALE,
            f'{old} the time between two by spec.backup.schedule ("{backup.schedule}"). See why: kubectl describe '
            f"cronjob,job -n {server.owner.namespace} -l mlflow-operator.dev/server={server.owner.name}. "
            f"{again(server)}",
        )
    if last is None:
        return false_condition(
            _TYPE,
            Reason.PROGRESSING,
            f"The first backup comes when spec.backup.schedule says. {again(server)}",
        )
    return true_condition(_TYPE, f"The last backup is {told.get('lastURI')}.")


def time(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def again(server: Server) -> str:
    """How a backup is made at once."""
    name = server.names.backup
    return f"To make one now: kubectl create job -n {server.owner.namespace} --from=cronjob/{name} {name}-by-hand"


def failure(server: Server, backup: Backup, job: str, answer: BackupResult | None, words: str | None) -> str:
    """Why the Job `job` made no backup; `words` are the last ones of one that gave no answer."""
    logs = f"kubectl logs -n {server.owner.namespace} job/{job} --all-containers"
    if answer and answer.faults:
        why = f"{_told(backup, answer.faults[0])} "
    else:
        lines = message_text.last_lines(words)
        why = f"It gave no answer; its last lines: {lines}\n" if lines else "It gave no answer. "
    return f'The backup Job "{job}" failed. {why}Earlier backups are untouched. More tells: {logs}.'


_TOLD = {
    "version": (
        "The pg_dump of {image} is older than the database: {said}. In spec.backup.image, name one of at least the "
        "major version of the database."
    ),
    "empty": "The database holds no tables of MLflow, and an empty backup is worth none.",
    "database": "The database can't be asked: {said}. See DatabaseReady.",
    "store": "The store of backups refuses or does not answer: {said}. See to the bucket, its key and its policy.",
    "moved": "The tables moved meanwhile ({said}), so that it would be neither of before nor of after.",
    "begin": "{said}: see whether the image {image} starts, and whether other sessions lock the tables.",
    "interrupted": "Its pod was stopped, by a drained node or for taking too long.",
}


def _told(backup: Backup, trouble: BackupError) -> str:
    fact = _TOLD.get(trouble.kind, "pg_dump says: {said}.")
    return fact.format(image=backup.image, said=message_text.strip_volatile(trouble.said).strip().rstrip("."))
