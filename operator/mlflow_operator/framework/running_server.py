"""What runs now: the Deployment after this reconcile, and the server at the version that is deployed."""

from dataclasses import dataclass, replace

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment as deployments
from mlflow_operator.model.server import Server


@dataclass(frozen=True)
class RunningServer:
    """The Deployment after this reconcile.

    `version` is the MLflow version of its pod template; None if this reconcile did not apply the template.
    """

    deployment: Object | None
    version: str | None


def recorded_image(context: ReconcileContext) -> str | None:
    """The image that was deployed last, from the status, or from the Deployment if the status is lost."""
    return context.observed.status.get("image") or running_image(context)


def server_at_running_version(context: ReconcileContext) -> Server:
    """The desired server, but with the version and image that are currently running."""
    image = recorded_image(context) or context.server.image
    version = str(
        context.observed.status.get("version")
        or context.deps.images.version_of(image)
        or context.server.version
    )
    is_default_image = context.deps.images.is_server(image, version)
    return replace(context.server, version=version, image=image, is_default_image=is_default_image)


def running_image(context: ReconcileContext) -> str | None:
    """The image that was requested for the server's Deployment; None if there is no Deployment."""
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return deployments.image_of(deployment) if deployment else None
