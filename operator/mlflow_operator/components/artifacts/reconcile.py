"""The artifact store: runs where it is ours, is reached, and has the bucket."""

from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import embedded as own_store
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.step import Outcome, Work, step, suspended, waits
from mlflow_operator.kube import labels
from mlflow_operator.model import artifact_store
from mlflow_operator.status.conditions import ConditionType, ready
from mlflow_operator.status.errors import Fault

_TYPE = ConditionType.ARTIFACT_STORE
_IDENTITY = "The server's own identity opens the bucket; the operator has none to check it with."
_FOREIGN = (
    "The store in spec.artifacts.external is not S3: MLflow opens it by what its pods are given, and the operator has "
    "nothing to check it with."
)


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None) -> Outcome[None]:
    """Brings the embedded store up, then sees to the bucket in whichever store it is."""
    if credentials is None and embedded_store.wanted(
        work
    ):  # nothing is started before its keys are safely stored
        return Outcome(waits(_TYPE, "the credentials"))
    artifacts, up, note = work.server.artifacts, True, ""
    if artifacts.embedded:
        owner, secret = work.server.owner, work.server.names.artifacts_secret
        claim = artifact_store.data(owner, artifacts.embedded)
        objects = artifact_store.objects(
            owner, artifacts.embedded, work.server.pods, running=embedded_store.wanted(work)
        )
        up, note = await embedded_store.bring_up(work, "artifacts", claim, secret, objects)
    if work.server.suspended or credentials is None:
        return Outcome(suspended(_TYPE))
    if not up:
        volume = work.server.names.artifact_store_data
        return await embedded_store.why_not(work, _TYPE, labels.ARTIFACT_STORE_POD, volume)
    store, keys = artifacts.s3, credentials.store
    if store is None or keys.own is None:
        return Outcome(ready(_TYPE, _FOREIGN if store is None else _IDENTITY))
    try:
        if artifacts.embedded and keys.root:
            await own_store.see_to(work, artifacts.embedded, store, keys.own, keys.root)
        else:
            note += await bucket.see_to(work, store, keys.own, credentials.store_ca)
    except Fault as fault:
        if not artifacts.embedded:
            raise
        return embedded_store.just_up(_TYPE, fault, work.settled)
    return Outcome(ready(_TYPE, f'The bucket "{store.bucket}" is there.{note}'))
