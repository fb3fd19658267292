"""Run the embedded artifact store, and ensure that the bucket exists and that the server's key has access to it.

Owns: condition ArtifactStoreReady; StatefulSet and Service `<name>-artifacts` and PersistentVolumeClaim
`<name>-artifacts-data` of the embedded store; in the store, the bucket with its settings and, if the operator generates
the server's key, the server's user, its policy, and the marker object of a shared store.
Needs: credentials (keys and CA certificate of the store).
Provides: no value; restore, upgrade, server and rotation use its condition. `clients` for rotation, backup and
deletion; `bucket` and `embedded` for rotation.
"""

from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import embedded as embedded_bucket
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.framework import embedded_store
from mlflow_operator.framework.component import ReconcileContext, Result, component, suspended, waiting
from mlflow_operator.kube import labels
from mlflow_operator.model import artifact_store, upload_arguments
from mlflow_operator.status.conditions import ConditionType, true_condition
from mlflow_operator.status.errors import ReconcileError

_TYPE = ConditionType.ARTIFACT_STORE
_WORKLOAD_IDENTITY_MESSAGE = (
    "The server uses its workload identity for the bucket. The operator has no credentials to check access."
)
_NOT_S3_MESSAGE = (
    "The store in spec.artifacts.external is not S3. MLflow accesses it with the settings of its pods; the operator "
    "cannot check it."
)


@component(_TYPE)
async def reconcile(context: ReconcileContext, credentials: Credentials | None) -> Result[None]:
    """Start the embedded store if the spec asks for one, then ensure the bucket."""
    # The store must not start before its keys are stored in the Secret.
    if credentials is None and embedded_store.should_run(context):
        return Result(waiting(_TYPE, "the credentials"))
    artifacts, is_up, note = context.server.artifacts, True, ""
    if artifacts.embedded:
        owner, names = context.server.owner, context.server.names.embedded_artifact_store
        claim = artifact_store.volume_claim(owner, artifacts.embedded)
        objects = artifact_store.objects(
            owner, artifacts.embedded, context.server.pods, running=embedded_store.should_run(context)
        )
        is_up, note = await embedded_store.ensure_store(context, "artifacts", claim, names, objects)
    if context.server.suspended or credentials is None:
        return Result(suspended(_TYPE))
    if not is_up:
        volume = context.server.names.artifact_store_data
        return await embedded_store.not_ready_reason(context, _TYPE, labels.ARTIFACT_STORE_POD, volume)
    store, keys = artifacts.s3, credentials.store
    if store:
        upload_arguments.check(context.server.env)
    if store is None or keys.service_key is None:
        return Result(true_condition(_TYPE, _NOT_S3_MESSAGE if store is None else _WORKLOAD_IDENTITY_MESSAGE))
    try:
        if artifacts.embedded and keys.root_key:
            await embedded_bucket.ensure(context, artifacts.embedded, store, keys.service_key, keys.root_key)
        else:
            note += await bucket.ensure(context, store, keys.service_key, credentials.store_ca)
    except ReconcileError as error:
        if not artifacts.embedded:
            raise
        return embedded_store.service_settling(_TYPE, error, context.was_ready)
    return Result(true_condition(_TYPE, f'The bucket "{store.bucket}" is accessible.{note}'))
