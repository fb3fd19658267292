"""Termination message of a restore pod, and the condition messages about it. Parsing is strict."""

from mlflow_operator.model.names import Names
from mlflow_operator.model.server import Restore, Server
from mlflow_operator.model.termination_message import JobError, ShortText, StrictModel, parse_message
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


class RestoredBackup(StrictModel):
    """The restored backup."""

    id: ShortText
    schemaRevision: ShortText  # noqa: N815 - the key in the manifest of the backup


class RestoreResult(StrictModel):
    """Result of the restore pod: a backup, or errors."""

    backup: RestoredBackup | None
    errors: tuple[JobError, ...]


def parse(text: str | None) -> RestoreResult | None:
    """Parse a termination message; None if it is not exactly a result."""
    result = parse_message(RestoreResult, text)
    return result if result and (result.backup or result.errors) else None


_REFUSALS = {
    "missing_keys": (
        (
            "The backup contains gateway or webhook secrets of {source} that are encrypted with keys which Secret "
            '"{keys}" does not have: {message}.'
        ),
        (
            "Copy these keys from the Secret of that server, {source_keys}, or from a backup of the Secret. If they "
            "are lost, {recreate} with spec.restoreFrom.missingKeyPolicy Ignore: these secrets are then unreadable, "
            "and everything else is restored"
        ),
    ),
    "not_empty": (
        "A restore does not replace existing tables, and {message}.",
        "Use a database without these tables, or remove spec.restoreFrom to use the existing data",
    ),
    "search_path": (
        "The backup is of the schema {message}, which is not in the search_path of the database's user.",
        "Set it, for example with ALTER ROLE ... SET search_path",
    ),
    "newer_schema": (
        "The backup has MLflow version and schema revision {message}, which the older image {image} does not know.",
        "Set spec.version to the version of the backup or a later one: the restore is then retried automatically",
    ),
    "format": (
        "The backup cannot be read: {message}.",
        "Use another backup, or an operator version that supports this format",
    ),
    "not_found": (
        "There is nothing to restore: {message}.",
        "Create the backup, or {recreate} with the correct spec.restoreFrom",
    ),
    "damaged": (
        "The backup is damaged: {message}.",
        "To restore another one, {recreate} with the ID of another backup in spec.restoreFrom.backup",
    ),
}
"""Fact and advice for errors that a retry cannot fix."""

_NOT_FOUND_ON_PLATFORM = (
    'The key of this server has access to its own prefix of MLflowPlatform "{platform}" only. To restore a backup of '
    "another server, {recreate} with the bucket, the prefix and an access key of that server in spec.restoreFrom.s3"
)

_RECREATE = (
    "delete this server with spec.deletionPolicy Retain, which keeps the backups in its artifact store, and create it "
    "again"
)

_FAILURES = {
    "store": (
        "The restore cannot read the backup: {message}.",
        "Check the name of the bucket, and the permissions of the access key of {store}",
    ),
    "database": ("The restore cannot use the database: {message}.", "Check {database}"),
    "start_timeout": (
        "The restore did not start: {message}.",
        "Check that the image {postgres_image} starts",
    ),
    "pg_restore": (
        "The restore failed: {message}.",
        "Check that the image {postgres_image} contains pg_restore and psql, and that they are new enough",
    ),
}
_DEFAULT_FAILURE = ("The restore failed: {message}.", "Fix the cause")


def failure(
    server: Server, restore: Restore, job: str, result: RestoreResult | None, termination_message: str | None
) -> ConfigurationError:
    """The error for a failed Job. `termination_message` is the one of the container that explains the failure."""
    consequence = (
        "Nothing was committed: the database is unchanged. {advice}, then run: kubectl delete job -n "
        f"{server.owner.namespace} {job}"
    )
    lines = message_text.last_lines(termination_message)
    quote = f". Its last lines: {lines}" if lines else "."
    if result is None or not result.errors:
        fact = f'The restore Job "{job}" ended without a readable result.'
        advice = "Fix the cause"
        return ConfigurationError(Reason.RESTORE_FAILED, f"{fact} {consequence.format(advice=advice)}{quote}")
    error = result.errors[0]
    refused = error.code in _REFUSALS
    fact, advice = _REFUSALS.get(error.code) or _FAILURES.get(error.code) or _DEFAULT_FAILURE
    origin = restore.store.origin
    if error.code == "not_found" and origin:
        advice = _NOT_FOUND_ON_PLATFORM
    values = {
        "platform": origin.name if origin else "",
        "message": message_text.strip_volatile(error.message).rstrip("."),
        "image": server.image,
        "postgres_image": restore.image,
        "keys": server.encryption.secret,
        "source": f"{restore.namespace}/{restore.server}",
        "source_keys": f'"{Names(restore.server).encryption_secret}" in namespace {restore.namespace}',
        "recreate": _RECREATE,
        "database": server.database_field,
        "store": "spec.restoreFrom.s3" if restore.separate_bucket else "the artifact store",
    }
    advice = advice.format(**values)
    if refused:
        consequence = (
            "Nothing was changed. {advice}; to retry, run: kubectl delete job -n "
            f"{server.owner.namespace} {job}"
        )
        quote = "."
    message = f"{fact.format(**values)} {consequence.format(advice=advice)}{quote}"
    return ConfigurationError(Reason.RESTORE_REFUSED if refused else Reason.RESTORE_FAILED, message)


def database_not_empty(restore: Restore) -> ConfigurationError:
    """The error if the database holds tables that are not from the requested backup."""
    return ConfigurationError(
        Reason.RESTORE_REFUSED,
        f"spec.restoreFrom requests a backup of {restore.namespace}/{restore.server}, but the database already holds "
        "tables of MLflow that were not restored from it. Nothing was changed. Use another database, or remove "
        "spec.restoreFrom to use the existing data.",
    )
