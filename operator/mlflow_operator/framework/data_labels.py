"""Labels of existing data objects: no GitOps tool may track the objects by them, and then delete the data."""

import logging
from dataclasses import replace

from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import ObservedState
from mlflow_operator.kube.client import Forbidden, Invalid
from mlflow_operator.model import retained_data
from mlflow_operator.model.names import Names

logger = logging.getLogger(__name__)


async def remove_instance_labels(observed: ObservedState, deps: Dependencies) -> ObservedState:
    """Remove the label with which earlier versions of the operator created volumes and credentials.

    This includes data that the spec no longer uses. Returns the observed state with the stored objects. An admission
    policy that rejects the change does not stop the reconcile. Raises Conflict if an object has changed since it was
    read.
    """
    owned, names = dict(observed.owned), Names(observed.resource["metadata"]["name"])
    for kind, name in (*retained_data.volumes(names), *retained_data.credentials(names)):
        obj = observed.get(kind, name)
        if obj is None:
            continue
        try:
            owned[kind.kind, name] = await deps.applier.remove_instance_label(obj, observed.resource)
        except (Forbidden, Invalid) as error:
            logger.warning(
                "%s still has the label that Argo CD may use to track and prune it: %s", kind.kind, error
            )
    return replace(observed, owned=owned)
