"""Kinds of objects that the operator reads or writes, and their API paths."""

import re
from dataclasses import dataclass

from mlflow_operator.kube.objects import Object

_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.:]*")
"""Names that are one segment of a path. A name such as `../x` would lead to another object or namespace."""


def is_valid_name(name: str) -> bool:
    """Whether an object can have this name."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Kind:
    """Kind of an object: its apiVersion and kind, and the plural name in its API path."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """Return the API path of a collection, an object or a subresource.

        Without `namespace` the path of a namespaced kind covers all namespaces and supports only list requests.
        Raises ValueError for an invalid name, for a name without a required namespace, and for a subresource without a
        name.
        """
        for part in filter(None, (namespace, name)):
            if not is_valid_name(part):
                raise ValueError(f"{part!r} is not a valid name")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name!r} needs a namespace")
        if subresource and not name:
            raise ValueError(f"the subresource {subresource!r} of {self.kind} needs a name")
        root = "apis" if "/" in self.api_version else "api"
        parts = [root, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


MLFLOWSERVER = Kind("mlflow-operator.dev/v1alpha1", "MLflowServer", "mlflowservers")
MLFLOWPLATFORM = Kind("mlflow-operator.dev/v1alpha1", "MLflowPlatform", "mlflowplatforms", namespaced=False)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFULSET = Kind("apps/v1", "StatefulSet", "statefulsets")
SERVICE = Kind("v1", "Service", "services")
CONFIGMAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
PVC = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
JOB = Kind("batch/v1", "Job", "jobs")
CRONJOB = Kind("batch/v1", "CronJob", "cronjobs")
POD = Kind("v1", "Pod", "pods")
PDB = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Kind("v1", "Event", "events")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
CRD = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
CLOUD_NATIVE_PG = Kind("postgresql.cnpg.io/v1", "Cluster", "clusters")
"""Cluster of CloudNativePG. Its CRD may not be installed; `get` returns None in that case."""
# Reviews are not stored: the response to the create request contains the result.
SELF_SUBJECT_REVIEW = Kind(
    "authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False
)
SELF_SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)

ALL = (
    *(
        MLFLOWSERVER,
        MLFLOWPLATFORM,
        DEPLOYMENT,
        STATEFULSET,
        SERVICE,
        CONFIGMAP,
        SECRET,
        PVC,
        JOB,
        CRONJOB,
        POD,
    ),
    *(PDB, LEASE, EVENT, NAMESPACE, CRD, SELF_SUBJECT_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, CLOUD_NATIVE_PG),
)

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in ALL}


def of(obj: Object) -> Kind:
    """Return the kind of an object. Raises KeyError for a kind that the operator does not know."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]
