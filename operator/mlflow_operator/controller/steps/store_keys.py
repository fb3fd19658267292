"""What opens the artifact store: a key that was generated, one that the owner's Secret holds, or none."""

from mlflow_operator.controller.steps.generated import generated
from mlflow_operator.controller.steps.step import Work
from mlflow_operator.core import credentials as secrets
from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.server import SecretKey


async def store_keys(work: Work) -> tuple[str | None, str | None]:
    """Access key id and secret access key; None with the pods' own identity."""
    artifacts, names = work.server.artifacts, work.server.names
    if artifacts.embedded:
        values = await generated(
            work,
            names.artifacts_secret,
            names.artifact_store_data,
            ("accessKeyID", "secretAccessKey"),
            lambda: secrets.artifacts_secret(
                work.server.owner, artifacts.store, work.out.password()[:20], work.out.password()
            ),
        )
        return values["accessKeyID"], values["secretAccessKey"]
    return await _store_key(work, artifacts.store.access_key), await _store_key(
        work, artifacts.store.secret_key
    )


async def _store_key(work: Work, wanted: SecretKey | None) -> str | None:
    """A key of somebody else's store. The server's pods take it as it stands in the Secret, so here nothing is cut
    off that would be sent from there."""
    value = await work.read.optional(wanted)
    if wanted and value is not None and (value != value.strip() or not value):
        what = "begins or ends with a space or a line break" if value else "is empty"
        raise UserMistake(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{wanted.key}" of Secret "{wanted.name}" ({wanted.field}) {what}, and no store takes such a key. '
            "Write it again without: printf leaves out the line break that echo puts at the end.",
        )
    return value
