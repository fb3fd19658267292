"""The artifact store: runs where it is ours, is reached, and has the bucket."""

from mlflow_operator.controller.steps import bucket, stores
from mlflow_operator.controller.steps.credentials import Credentials
from mlflow_operator.controller.steps.step import Outcome, Work, step, suspended, waits
from mlflow_operator.core import artifact_store, labels
from mlflow_operator.core.conditions import ConditionType, ready
from mlflow_operator.core.faults import Fault
from mlflow_operator.providers.minio_api import AccessKey

_TYPE = ConditionType.ARTIFACT_STORE
_IDENTITY = "The server's own identity opens the bucket; the operator has none to check it with."
_FOREIGN = (
    "The store in spec.artifacts.external is not S3: MLflow opens it by what its pods are given, and the operator has "
    "nothing to check it with."
)


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None) -> Outcome[None]:
    """Brings the embedded store up, then sees to the bucket in whichever store it is."""
    if credentials is None and stores.wanted(work):  # nothing is started before its keys are safely stored
        return Outcome(waits(_TYPE, "the credentials"))
    artifacts, up, note = work.server.artifacts, True, ""
    if artifacts.embedded:
        owner, secret = work.server.owner, work.server.names.artifacts_secret
        claim = artifact_store.data(owner, artifacts.embedded)
        objects = artifact_store.objects(
            owner, artifacts.embedded, work.server.pods, running=stores.wanted(work)
        )
        up, note = await stores.bring_up(work, "artifacts", claim, secret, objects)
    if work.server.suspended or credentials is None:
        return Outcome(suspended(_TYPE))
    if not up:
        volume = work.server.names.artifact_store_data
        return await stores.why_not(work, _TYPE, labels.ARTIFACT_STORE_POD, volume)
    store, key = artifacts.s3, _key(credentials)
    if store is None or key is None:
        return Outcome(ready(_TYPE, _FOREIGN if store is None else _IDENTITY))
    try:
        note += await bucket.see_to(work, store, key, credentials.store_ca)
    except Fault as fault:
        if not artifacts.embedded:
            raise
        return stores.just_up(_TYPE, fault, work.settled)
    return Outcome(ready(_TYPE, f'The bucket "{store.bucket}" is there.{note}'))


def _key(credentials: Credentials) -> AccessKey | None:
    if credentials.access_key is None or credentials.secret_key is None:
        return None
    return AccessKey(credentials.access_key, credentials.secret_key)
