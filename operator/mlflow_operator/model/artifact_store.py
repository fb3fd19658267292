"""The embedded artifact store: one S3 server, MinIO or SeaweedFS, with one PersistentVolumeClaim."""

from mlflow_operator.api.artifacts import Engine
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import minio, seaweedfs, stateful_store
from mlflow_operator.model.pod_template import PodSettings
from mlflow_operator.model.server import EmbeddedArtifactStore, ServerRef
from mlflow_operator.model.stateful_store import Store
from mlflow_operator.model.volumes import persistent_volume_claim

PORT = 9000


def objects(
    owner: ServerRef, store: EmbeddedArtifactStore, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; `running` False means 0 replicas.

    The PersistentVolumeClaim and the credentials are data: `volume_claim` and `model.secrets` build them.
    """
    names = owner.names
    engine = seaweedfs if store.engine is Engine.SEAWEEDFS else minio
    stateful = Store(
        name=names.artifact_store,
        component=labels.ARTIFACT_STORE_POD,
        claim_name=names.artifact_store_data,
        port_name="s3",
        port=PORT,
        run_as_user=engine.RUN_AS_USER,
        grace_seconds=engine.GRACE_SECONDS,
        container=engine.container(owner, store, PORT),
        volumes=engine.volumes(owner),
    )
    return stateful_store.objects(owner, stateful, settings, running=running)


def volume_claim(owner: ServerRef, store: EmbeddedArtifactStore) -> Object:
    """PersistentVolumeClaim of the store."""
    return persistent_volume_claim(
        owner, owner.names.artifact_store_data, labels.ARTIFACT_STORE_POD, store.volume
    )


def endpoint(owner: ServerRef) -> str:
    """Endpoint for the server and the operator."""
    return f"http://{owner.names.artifact_store}.{owner.namespace}.svc:{PORT}"
