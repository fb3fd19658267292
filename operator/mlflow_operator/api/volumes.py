"""Volumes of pods: the types that the restricted Pod Security Standard allows.

Other types, such as hostPath, would give everyone who can write an MLflowServer access to the node. The sources are
copied to the pod without changes, except tokens of the service account.
"""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, Int64, ListAtomic, Opaque
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, cel_string, join_names, matches, string_rule

RESERVED_VOLUMES = (
    "home",
    "plugins",
    "database-ca",
    "artifacts-ca",
    "encryption-keys",
    "own-encryption-keys",
)
"""Names of the volumes that the operator adds to pods that run MLflow."""

_API_AUDIENCES = ("k3s", "rke2")
_API_AUDIENCE_PARTS = (
    "kubernetes.default",
    "container.googleapis.com",
    ".azmk8s.io",
    ".oic.prod-aks.azure.com",
)
"""Audiences of the Kubernetes API, and parts of them: the defaults of Kubernetes, k3s, RKE2, GKE and AKS. They follow
the API server's --api-audiences, or --service-account-issuer, which only the administrator of the cluster knows."""

_DOWNWARD_API = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}
_EPHEMERAL = {
    "volumeClaimTemplate": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    }
}


class ServiceAccountToken(Model):
    """Token of the pod's service account for another system, such as a cloud provider."""

    audience: Annotated[
        str,
        Field(max_length=512),
        Field(examples=["sts.amazonaws.com"]),
        string_rule(
            f"!(self in ['', {', '.join(map(cel_string, _API_AUDIENCES))}]) && "
            + " && ".join(f"!self.contains({cel_string(part)})" for part in _API_AUDIENCE_PARTS),
            "is not a valid audience: use the audience of another system, never that of the Kubernetes API, to which "
            "the pods have no access",
            lambda audience: (
                audience not in {"", *_API_AUDIENCES}
                and not any(part in audience for part in _API_AUDIENCE_PARTS)
            ),
        ),
    ]
    """System that accepts the token. It must not be the Kubernetes API."""
    path: Annotated[str, Field(max_length=512), Field(examples=["token"])]
    """Path of the file in the volume."""
    expiration_seconds: Annotated[Int64 | None, Field(examples=[3600])] = None
    """Lifetime of the token in seconds. Defaults to 3600."""


_PROJECTED_SOURCES = ("config_map", "secret", "downward_api", "service_account_token")


class ProjectedSource(Model):
    """Source of a projected volume."""

    config_map: Annotated[Opaque | None, Field(examples=[{"name": "tracking-files"}])] = None
    """ConfigMap whose keys become files."""
    secret: Annotated[Opaque | None, Field(examples=[{"name": "tracking-plugin"}])] = None
    """Secret whose keys become files."""
    downward_api: Annotated[Opaque | None, Field(alias="downwardAPI"), Field(examples=[_DOWNWARD_API])] = None
    """Fields of the pod that become files."""
    service_account_token: ServiceAccountToken | None = None
    """Token of the pod's service account for another system."""

    rules = (
        Rule(
            "(has(self.configMap) ? 1 : 0) + (has(self.secret) ? 1 : 0) + (has(self.downwardAPI) ? 1 : 0) + "
            "(has(self.serviceAccountToken) ? 1 : 0) == 1",
            "a source of a projected volume must be exactly one of configMap, secret, downwardAPI and "
            "serviceAccountToken",
            holds=lambda source: sum(getattr(source, name) is not None for name in _PROJECTED_SOURCES) == 1,
        ),
    )


class ProjectedVolume(Model):
    """Several sources in one directory."""

    sources: Annotated[tuple[ProjectedSource, ...], Field(max_length=32), ListAtomic()] = ()
    """Sources of the files."""
    default_mode: Annotated[Int32 | None, Field(examples=[292])] = None
    """Permission bits of the files."""


_TYPES = {
    "config_map": "configMap",
    "secret": "secret",
    "empty_dir": "emptyDir",
    "persistent_volume_claim": "persistentVolumeClaim",
    "projected": "projected",
    "downward_api": "downwardAPI",
    "csi": "csi",
    "ephemeral": "ephemeral",
}


class Volume(Model):
    """Volume of the pod. Only the types that the restricted Pod Security Standard allows are supported."""

    name: Annotated[
        str,
        Field(max_length=63),
        matches(
            r"[a-z0-9]([a-z0-9-]*[a-z0-9])?",
            "is not a valid volume name: use lower-case letters, digits and '-'",
        ),
        string_rule(
            f"!(self in [{', '.join(map(cel_string, RESERVED_VOLUMES))}])",
            "is the name of a volume that the operator adds: use another name",
            lambda name: name not in RESERVED_VOLUMES,
        ),
    ]
    """Name of the volume, to which `spec.volumeMounts` refers."""
    config_map: Opaque | None = None
    """ConfigMap whose keys become files."""
    secret: Annotated[Opaque | None, Field(examples=[{"secretName": "tracking-plugin"}])] = None
    """Secret whose keys become files."""
    empty_dir: Annotated[Opaque | None, Field(examples=[{"sizeLimit": "1Gi"}])] = None
    """Directory that is empty when the pod starts, and deleted with it."""
    persistent_volume_claim: Annotated[Opaque | None, Field(examples=[{"claimName": "datasets"}])] = None
    """PersistentVolumeClaim in the namespace of the server."""
    projected: ProjectedVolume | None = None
    """Several sources in one directory."""
    downward_api: Annotated[Opaque | None, Field(alias="downwardAPI"), Field(examples=[_DOWNWARD_API])] = None
    """Fields of the pod that become files."""
    csi: Annotated[
        Opaque | None, Field(examples=[{"driver": "secrets-store.csi.k8s.io", "readOnly": True}])
    ] = None
    """Volume of a CSI driver that is created with the pod, such as the Secrets Store CSI driver."""
    ephemeral: Annotated[Opaque | None, Field(examples=[_EPHEMERAL])] = None
    """PersistentVolumeClaim that is created and deleted with the pod."""

    rules = (
        Rule(
            f"{' + '.join(f'(has(self.{name}) ? 1 : 0)' for name in _TYPES.values())} == 1",
            f"a volume must have exactly one of the supported types {join_names([*_TYPES.values()])}; for other "
            "storage, such as hostPath or nfs, create a PersistentVolumeClaim and use persistentVolumeClaim",
            holds=lambda volume: sum(getattr(volume, attribute) is not None for attribute in _TYPES) == 1,
        ),
    )
