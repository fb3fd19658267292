"""The artifact store: runs where it is ours, is reached, and has the bucket."""

from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import embedded as own_store
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.step import ReconcileContext, Result, step, suspended, waiting
from mlflow_operator.kube import labels
from mlflow_operator.model import artifact_store
from mlflow_operator.status.conditions import ConditionType, true_condition
from mlflow_operator.status.errors import ReconcileError

_TYPE = ConditionType.ARTIFACT_STORE
_IDENTITY = "The server's own identity opens the bucket; the operator has none to check it with."
_FOREIGN = (
    "The store in spec.artifacts.external is not S3: MLflow opens it by what its pods are given, and the operator has "
    "nothing to check it with."
)


@step(_TYPE)
async def run(context: ReconcileContext, credentials: Credentials | None) -> Result[None]:
    """Brings the embedded store up, then sees to the bucket in whichever store it is."""
    if credentials is None and embedded_store.wanted(
        context
    ):  # nothing is started before its keys are safely stored
        return Result(waiting(_TYPE, "the credentials"))
    artifacts, up, note = context.server.artifacts, True, ""
    if artifacts.embedded:
        owner, secret = context.server.owner, context.server.names.artifacts_secret
        claim = artifact_store.data(owner, artifacts.embedded)
        objects = artifact_store.objects(
            owner, artifacts.embedded, context.server.pods, running=embedded_store.wanted(context)
        )
        up, note = await embedded_store.ensure_store(context, "artifacts", claim, secret, objects)
    if context.server.suspended or credentials is None:
        return Result(suspended(_TYPE))
    if not up:
        volume = context.server.names.artifact_store_data
        return await embedded_store.not_ready_reason(context, _TYPE, labels.ARTIFACT_STORE_POD, volume)
    store, keys = artifacts.s3, credentials.store
    if store is None or keys.service_key is None:
        return Result(true_condition(_TYPE, _FOREIGN if store is None else _IDENTITY))
    try:
        if artifacts.embedded and keys.root_key:
            await own_store.ensure(context, artifacts.embedded, store, keys.service_key, keys.root_key)
        else:
            note += await bucket.ensure(context, store, keys.service_key, credentials.store_ca)
    except ReconcileError as fault:
        if not artifacts.embedded:
            raise
        return embedded_store.service_settling(_TYPE, fault, context.was_ready)
    return Result(true_condition(_TYPE, f'The bucket "{store.bucket}" is there.{note}'))
