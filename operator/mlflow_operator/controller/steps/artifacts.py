"""The artifact store: runs where it is ours, is reached, and has the bucket."""

from mlflow_operator.controller.steps import stores
from mlflow_operator.controller.steps.credentials import Credentials
from mlflow_operator.controller.steps.step import Outcome, Work, step, suspended, waits
from mlflow_operator.core import artifact_store, labels
from mlflow_operator.core.conditions import ConditionType, ready
from mlflow_operator.core.faults import Fault
from mlflow_operator.core.server import BucketCreation
from mlflow_operator.providers import names, trust
from mlflow_operator.providers.s3 import Bucket

_TYPE = ConditionType.ARTIFACT_STORE


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
    if credentials.access_key is None or credentials.secret_key is None:
        return Outcome(
            ready(
                _TYPE, "The server's own identity opens the bucket; the operator has none to check it with."
            )
        )
    store, endpoint = artifacts.store, artifacts.store.endpoint
    if endpoint and not artifacts.embedded:
        endpoint = await names.completed_url(endpoint, work.server.owner.namespace, work.out.cluster_domain)
    bucket = Bucket(
        endpoint,
        store.region,
        store.bucket,
        store.addressing_style,
        credentials.access_key,
        credentials.secret_key,
        await trust.path_of(credentials.store_ca),
        store.access_key.field if store.access_key else "spec.artifacts",
    )
    create = store.creation is BucketCreation.IF_MISSING
    try:
        await work.out.stores.ensure(bucket, create)
    except Fault as fault:
        if not artifacts.embedded:
            raise
        return stores.just_up(_TYPE, fault, work.settled)
    return Outcome(ready(_TYPE, f'The bucket "{store.bucket}" is there.{note}'))
