"""What opens the artifact store: a key that was generated, one that the owner's Secret holds, or none."""

from mlflow_operator.controller.steps.generated import generated
from mlflow_operator.controller.steps.step import Work
from mlflow_operator.core import credentials as secrets
from mlflow_operator.core import kinds
from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.server import ObjectStore, SecretKey


async def store_keys(work: Work) -> tuple[str | None, str | None]:
    """Access key id and secret access key; None with the pods' own identity."""
    artifacts, store = work.server.artifacts, work.server.artifacts.s3
    if store is None:
        return None, None
    if artifacts.embedded or store.admin:
        return await _generated(work, store)
    if store.access_key is None or store.secret_key is None:
        return None, None
    return await whole(work, store.access_key), await whole(work, store.secret_key)


async def whole(work: Work, wanted: SecretKey) -> str:
    """A key of somebody else's store. The server's pods take it as it stands in the Secret, so here nothing is cut
    off that would be sent from there."""
    value = await work.read.value(wanted)
    if value != value.strip() or not value:
        what = "begins or ends with a space or a line break" if value else "is empty"
        raise UserMistake(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{wanted.key}" of Secret "{wanted.name}" ({wanted.field}) {what}, and no store takes such a key. '
            "Write it again without: printf leaves out the line break that echo puts at the end.",
        )
    return value


async def _generated(work: Work, store: ObjectStore) -> tuple[str, str]:
    """The embedded store's root key, which must outlive its volume; or the key of a user of a shared one. Of that one
    another can be made at any time: whoever wants it deletes the Secret."""
    owner, name = work.server.owner, work.server.names.artifacts_secret
    values = await generated(
        work,
        name,
        work.server.names.artifact_store_data if work.server.artifacts.embedded else None,
        ("accessKeyID", "secretAccessKey"),
        lambda: secrets.artifacts_secret(owner, store, work.out.password()[:20], work.out.password()),
    )
    moved = secrets.artifacts_moved(values, store)
    if moved:
        await work.out.cluster.json_patch(kinds.SECRET, owner.namespace, name, moved)
    return values["accessKeyID"], values["secretAccessKey"]
