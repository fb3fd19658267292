"""The artifact locations that pods of the server may still use: the recorded ones, and never what a pod claims.

Anyone who can create or change pods and Deployments in the namespace chooses their labels and environment. These
objects therefore only decide how long a location stays recorded, not which locations are recorded.
"""

from mlflow_operator.api.status import MAX_PREVIOUS_LOCATIONS
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.model.storage_location import ArtifactLocation


def used_before(context: ReconcileContext) -> list[ArtifactLocation]:
    """Return the recorded locations other than the desired one that a pod or the Deployment still uses."""
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    pods = filter(pod_diagnosis.is_active, context.observed.list(kinds.POD, labels.SERVER_POD))
    pod_specs = [
        *([deployment["spec"]["template"]["spec"]] if deployment else []),
        *(pod.get("spec") or {} for pod in pods),
    ]
    in_use = {storage_location.artifact_location(pod_spec) for pod_spec in pod_specs}
    desired = storage_location.desired_artifact_location(context.server.artifacts)
    recorded = storage_location.recorded_artifact_locations(context.observed.status)
    return [location for location in recorded if location != desired and location in in_use]


def status_field(context: ReconcileContext) -> Object:
    """Return the field `previousLocations` of `status.artifacts`; empty if pods use the desired location only."""
    previous = used_before(context)[:MAX_PREVIOUS_LOCATIONS]
    return {"previousLocations": [location.as_object() for location in previous]} if previous else {}
