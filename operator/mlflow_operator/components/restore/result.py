"""What a restore answered, read strictly, and what people are told of it."""

from mlflow_operator.model.server import Restore, Server
from mlflow_operator.model.termination_message import JobError, StrictModel, Word, read
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


class Restored(StrictModel):
    """The backup that was put back."""

    id: Word
    schemaRevision: Word  # noqa: N815 - as the manifest has it


class RestoreResult(StrictModel):
    """Without a backup there is a fault."""

    backup: Restored | None
    faults: tuple[JobError, ...]


def parse(text: str | None) -> RestoreResult | None:
    """The answer in a container's last words; None for anything that is not just that."""
    answer = read(RestoreResult, text)
    return answer if answer and (answer.backup or answer.faults) else None


_REFUSALS = {
    "tables": (
        "A backup is put into an empty database only, and {said}.",
        "Name an empty database, or take spec.restoreFrom away to go on with what is there",
    ),
    "newer": (
        "The backup is of MLflow and revision {said}, which the image {image} does not know: it is older.",
        "Set spec.version to the backup's, or to a later one: then it is tried anew by itself",
    ),
    "format": (
        "The backup can't be read: {said}.",
        "Take another backup, or an operator that knows it",
    ),
    "missing": (
        "Nothing can be restored: {said}.",
        "Have it made, or make this server anew with what is right in spec.restoreFrom",
    ),
    "damaged": (
        "The backup is damaged: {said}.",
        "Make the server anew with another backup's id in spec.restoreFrom.backup",
    ),
}
"""What would be no other with another try: a fact, and what to do."""

_FAILURES = {
    "store": ("The restore could not read the backup: {said}.", "Check what the key of {place} may do"),
    "database": ("The restore could not use the database: {said}.", "Check what spec.database says of it"),
    "begin": ("The restore did not begin: {said}.", "See whether the image {tools} starts"),
    "pg_restore": (
        "The restore failed: {said}.",
        "See whether the image {tools} has Postgres' programs, new enough",
    ),
}
_OTHER = ("The restore failed: {said}.", "Mend the cause")


def failure(
    server: Server, restore: Restore, job: str, answer: RestoreResult | None, words: str | None
) -> ConfigurationError:
    """What is said of a Job that failed. `words` are the last ones of the container that had most to say."""
    again = (
        "Nothing was kept of it: the database is as empty as before. {advice}, then run: kubectl delete job -n "
        f"{server.owner.namespace} {job}"
    )
    lines = message_text.last_lines(words)
    quoted = f". Its last lines: {lines}" if lines else "."
    if answer is None or not answer.faults:
        fact = f'The restore Job "{job}" ended without an answer.'
        advice = "Mend the cause"
        return ConfigurationError(Reason.RESTORE_FAILED, f"{fact} {again.format(advice=advice)}{quoted}")
    trouble = answer.faults[0]
    refused = trouble.kind in _REFUSALS
    fact, advice = _REFUSALS.get(trouble.kind) or _FAILURES.get(trouble.kind) or _OTHER
    values = {
        "said": message_text.strip_volatile(trouble.said).rstrip("."),
        "image": server.image,
        "tools": restore.image,
        "place": "spec.restoreFrom.s3" if restore.separate_bucket else "the artifact store",
    }
    advice = advice.format(**values)
    if refused:
        again = (
            "Nothing was touched. {advice}; to have it tried again, run: kubectl delete job -n "
            f"{server.owner.namespace} {job}"
        )
        quoted = "."
    message = f"{fact.format(**values)} {again.format(advice=advice)}{quoted}"
    return ConfigurationError(Reason.RESTORE_REFUSED if refused else Reason.RESTORE_FAILED, message)


def occupied(restore: Restore) -> ConfigurationError:
    """What is said where the database holds tables that are not those of the backup."""
    return ConfigurationError(
        Reason.RESTORE_REFUSED,
        f"spec.restoreFrom asks for a backup of {restore.namespace}/{restore.server}, and the database holds tables "
        "already that did not come from there. Nothing was touched. Name an empty database, or take spec.restoreFrom "
        "away to go on with what is there.",
    )
