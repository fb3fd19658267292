"""The kinds of objects the operator touches, and where the API server keeps them."""

from dataclasses import dataclass

from mlflow_operator.kube.objects import Object


@dataclass(frozen=True)
class Kind:
    """One kind of object: what YAML calls it, and what its address calls it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The address of a collection, an object or a subresource, below the API server's root.

        Without `namespace` a namespaced kind's path is that of all namespaces, which can only be listed.
        ValueError: a name in no namespace, or a subresource of nothing.
        """
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name!r} needs a namespace")
        if subresource and not name:
            raise ValueError(f"the {subresource} of which {self.kind}?")
        root = "apis" if "/" in self.api_version else "api"
        parts = [root, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


MLFLOWSERVER = Kind("mlflow-operator.dev/v1alpha1", "MLflowServer", "mlflowservers")
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
"""Not ours, and perhaps not there: `get` of one finds nothing then."""
# Questions: nothing is stored, the answer is the object itself.
SELF_SUBJECT_REVIEW = Kind(
    "authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False
)
SELF_SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)

ALL = (
    *(MLFLOWSERVER, DEPLOYMENT, STATEFULSET, SERVICE, CONFIGMAP, SECRET, PVC, JOB, CRONJOB, POD),
    *(PDB, LEASE, EVENT, NAMESPACE, CRD, SELF_SUBJECT_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, CLOUD_NATIVE_PG),
)

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in ALL}


def of(obj: Object) -> Kind:
    """The kind of an object. KeyError names one that the operator does not know."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]
