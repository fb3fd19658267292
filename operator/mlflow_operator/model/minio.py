"""MinIO as the embedded artifact store."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts
from mlflow_operator.model.server import EmbeddedArtifactStore, ServerRef

RUN_AS_USER = 10001
GRACE_SECONDS = 30


def container(owner: ServerRef, store: EmbeddedArtifactStore, port: int) -> Object:
    """The store's container. `port` is MinIO's default port."""
    return {
        "name": "minio",
        "image": store.image,
        "args": ["server", "/data"],
        "env": [
            container_parts.env_from_secret("MINIO_ROOT_USER", store.root_credentials.access_key),
            container_parts.env_from_secret("MINIO_ROOT_PASSWORD", store.root_credentials.secret_key),
            # Only the server and the operator use the store: no web console, no update check.
            container_parts.env_value("MINIO_BROWSER", "off"),
            container_parts.env_value("MINIO_UPDATE", "off"),
        ],
        "resources": store.resources,
        "startupProbe": container_parts.http_probe("/minio/health/ready", "s3", 1, 120),
        "readinessProbe": container_parts.http_probe("/minio/health/ready", "s3", 5, 3),
        "livenessProbe": container_parts.http_probe("/minio/health/live", "s3", 20, 6, 10),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


def volumes(owner: ServerRef) -> tuple[Object, ...]:
    """MinIO needs no volume in addition to its data."""
    return ()
