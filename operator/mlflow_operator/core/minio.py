"""The embedded artifact store: one MinIO on a volume of its own."""

from mlflow_operator.core import embedded, labels, pods
from mlflow_operator.core.embedded import Store
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import EmbeddedArtifactStore, Owner, PodSettings, SecretKey
from mlflow_operator.core.volumes import claim

_USER = 10001
PORT = 9000


def objects(
    owner: Owner, store: EmbeddedArtifactStore, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; no pod unless `running`.

    The volume and the credentials are data, made by `data` and `credentials`.
    """
    names = owner.names
    shape = Store(
        name=names.artifact_store,
        component=labels.ARTIFACT_STORE_POD,
        claim=names.artifact_store_data,
        port_name="s3",
        port=PORT,
        user=_USER,
        grace=30,
        container=_container(owner, store),
    )
    return embedded.objects(owner, shape, settings, running=running)


def data(owner: Owner, store: EmbeddedArtifactStore) -> Object:
    """The volume's claim."""
    return claim(owner, owner.names.artifact_store_data, labels.ARTIFACT_STORE_POD, store.volume)


def endpoint(owner: Owner) -> str:
    """Where the server and the operator reach it."""
    return f"http://{owner.names.artifact_store}.{owner.namespace}.svc:{PORT}"


def _container(owner: Owner, store: EmbeddedArtifactStore) -> Object:
    secret = owner.names.artifacts_secret
    return {
        "name": "minio",
        "image": store.image,
        "args": ["server", "/data"],
        "env": [
            pods.from_secret("MINIO_ROOT_USER", SecretKey(secret, "accessKeyID", "")),
            pods.from_secret("MINIO_ROOT_PASSWORD", SecretKey(secret, "secretAccessKey", "")),
            # the store talks to its server alone
            pods.value("MINIO_BROWSER", "off"),
            pods.value("MINIO_UPDATE", "off"),
        ],
        "resources": store.resources,
        "startupProbe": pods.http_probe("/minio/health/ready", "s3", 1, 120),
        "readinessProbe": pods.http_probe("/minio/health/ready", "s3", 5, 3),
        "livenessProbe": pods.http_probe("/minio/health/live", "s3", 20, 6, 10),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
