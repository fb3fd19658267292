"""Write the Deployment of the server. Apart from this module, only `deletion.phases` changes its replicas."""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import json_patch, labels
from mlflow_operator.kube.apply import check_ownership
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment

_REPLICAS = json_patch.pointer("spec", "replicas")
_INPUTS_DIGEST = json_patch.pointer("spec", "template", "metadata", "annotations", labels.INPUTS_DIGEST)
_STOPPED_AT = json_patch.pointer("metadata", "annotations", labels.STOPPED_AT)


async def apply(context: ReconcileContext, inputs_digest: str) -> Object:
    """Create or update the whole Deployment. `inputs_digest` is the fingerprint of the values that the pods read."""
    return await context.ensure(deployment.deployment(context.server, inputs_digest))


async def keep_template(
    context: ReconcileContext, observed: Object, replicas: int, inputs_digest: str | None = None
) -> Object:
    """Keep the image and all other settings of the existing pods, and change the number of pods only.

    Other changes to the spec are applied together with the new version. A new `inputs_digest` still restarts the pods:
    pods that keep a replaced password would lose access.
    """
    check_ownership(observed, context.observed.resource, data=False)
    operations = []
    if observed["spec"].get("replicas") != replicas:
        operations.append(json_patch.put(_REPLICAS, replicas))
    if inputs_digest is not None and inputs_digest_of(observed) != inputs_digest:
        operations.append(json_patch.put(_INPUTS_DIGEST, inputs_digest))
    return await context.patch(observed, operations)


async def stop(context: ReconcileContext, observed: Object) -> Object:
    """Scale the server to 0 for a schema migration and annotate the time in the same write.

    Each pod ends after it has answered its current requests.
    """
    check_ownership(observed, context.observed.resource, data=False)
    if not observed["spec"].get("replicas"):
        return observed
    stopped_at = json_patch.put(_STOPPED_AT, context.deps.now())
    return await context.patch(observed, [json_patch.put(_REPLICAS, 0), stopped_at])


def inputs_digest_of(observed: Object) -> str:
    """The fingerprint of the values that the pods of an existing Deployment read; empty if it has none."""
    annotations = observed["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(labels.INPUTS_DIGEST) or "")
