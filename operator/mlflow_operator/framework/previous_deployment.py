"""The server Deployment during an upgrade: keep its pods on the previous version, stop them, or scale them to zero."""

from dataclasses import dataclass, replace

from mlflow_operator.framework.component import ReconcileContext, Result
from mlflow_operator.kube import json_patch, kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import availability
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition

_TYPE = ConditionType.SERVER
_REPLICAS_PATH = "/spec/replicas"


@dataclass(frozen=True)
class RunningServer:
    """The Deployment after this reconcile.

    `version` is the MLflow version of its pod template; None if this reconcile did not apply the template.
    """

    deployment: Object | None
    version: str | None


async def preserve(context: ReconcileContext, observed: Object, inputs_digest: str) -> Result[RunningServer]:
    """Keep the server pods on the previous pod template.

    Other changes to the spec are applied together with the new version. Only the number of replicas follows the spec,
    and a new `inputs_digest`, the hash of the values that pods read, still triggers a rollout: pods that keep a
    replaced password would lose access.
    """
    operations = []
    if observed["spec"].get("replicas") != context.server.replicas:
        operations.append(json_patch.put(_REPLICAS_PATH, context.server.replicas))
    annotations = observed["spec"]["template"]["metadata"].get("annotations") or {}
    if annotations.get(labels.INPUTS_DIGEST) != inputs_digest:
        path = json_patch.pointer("spec", "template", "metadata", "annotations", labels.INPUTS_DIGEST)
        operations.append(json_patch.put(path, inputs_digest))
    observed = await context.patch(observed, operations)
    return Result(
        availability.condition(observed, context.observed.list(kinds.POD, labels.SERVER_POD)),
        RunningServer(observed, None),
    )


async def stop(context: ReconcileContext, observed: Object | None) -> Result[RunningServer]:
    """Scale the server to 0 for a schema migration and annotate the time in the same write.

    Each pod ends after it has answered its current requests.
    """
    if observed and observed["spec"].get("replicas"):
        stopped_at = json_patch.put(
            json_patch.pointer("metadata", "annotations", labels.STOPPED_AT), context.deps.now()
        )
        observed = await context.patch(observed, [json_patch.put(_REPLICAS_PATH, 0), stopped_at])
    message = "The server is scaled to 0 during the schema migration."
    return Result(false_condition(_TYPE, Reason.PROGRESSING, message), RunningServer(observed, None))


async def scale_to_zero(context: ReconcileContext, observed: Object) -> Object:
    """Scale a suspended server to 0 and keep its pod template."""
    return await context.patch(
        observed, [json_patch.put(_REPLICAS_PATH, 0)] if observed["spec"].get("replicas") else []
    )


def server_at_running_version(context: ReconcileContext) -> Server:
    """The desired server, but with the version and image that are currently running."""
    version = str(context.observed.status.get("version") or context.server.version)
    image = str(context.observed.status["image"])
    is_default_image = image == context.deps.images.server(version)
    return replace(context.server, version=version, image=image, is_default_image=is_default_image)
