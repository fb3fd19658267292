"""The embedded artifact store: one MinIO on a volume of its own."""

from mlflow_operator.core import labels, pods
from mlflow_operator.core.meta import metadata
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
    return [_service(owner), _stateful_set(owner, store, settings, 1 if running else 0)]


def data(owner: Owner, store: EmbeddedArtifactStore) -> Object:
    """The volume's claim."""
    return claim(owner, owner.names.artifact_store_data, labels.ARTIFACT_STORE_POD, store.volume)


def endpoint(owner: Owner) -> str:
    """Where the server and the operator reach it."""
    return f"http://{owner.names.artifact_store}.{owner.namespace}.svc:{PORT}"


def _service(owner: Owner) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, owner.names.artifact_store, labels.ARTIFACT_STORE_POD),
        "spec": {
            "type": "ClusterIP",
            "selector": labels.pods(owner.name, labels.ARTIFACT_STORE_POD),
            "ports": [{"name": "s3", "port": PORT, "targetPort": "s3", "protocol": "TCP"}],
        },
    }


def _stateful_set(owner: Owner, store: EmbeddedArtifactStore, settings: PodSettings, replicas: int) -> Object:
    names = owner.names
    secret = names.artifacts_secret
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(owner, names.artifact_store, labels.ARTIFACT_STORE_POD),
        "spec": {
            "replicas": replicas,
            "serviceName": names.artifact_store,
            # with OrderedReady a pod that never became ready would never be replaced by a mended one
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels.pods(owner.name, labels.ARTIFACT_STORE_POD)},
            "template": {
                "metadata": {"labels": labels.owned(owner.name, labels.ARTIFACT_STORE_POD)},
                "spec": {
                    **pods.common(_USER, settings),
                    "terminationGracePeriodSeconds": 30,
                    "containers": [
                        {
                            "name": "minio",
                            "image": store.image,
                            "imagePullPolicy": "IfNotPresent",
                            "args": ["server", "/data"],
                            "ports": [{"name": "s3", "containerPort": PORT}],
                            "env": [
                                pods.from_secret("MINIO_ROOT_USER", SecretKey(secret, "accessKeyID", "")),
                                pods.from_secret(
                                    "MINIO_ROOT_PASSWORD", SecretKey(secret, "secretAccessKey", "")
                                ),
                                # the store talks to its server alone
                                pods.value("MINIO_BROWSER", "off"),
                                pods.value("MINIO_UPDATE", "off"),
                                *pods.home_env(),
                            ],
                            "resources": store.resources,
                            "securityContext": pods.CONTAINER_SECURITY,
                            "startupProbe": pods.http_probe("/minio/health/ready", "s3", 1, 120),
                            "readinessProbe": pods.http_probe("/minio/health/ready", "s3", 5, 3),
                            "livenessProbe": pods.http_probe("/minio/health/live", "s3", 20, 6, 10),
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "data", "mountPath": "/data"},
                                pods.HOME_MOUNT,
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": names.artifact_store_data}},
                        pods.HOME_VOLUME,
                    ],
                },
            },
        },
    }
