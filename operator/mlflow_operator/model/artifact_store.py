"""The embedded artifact store: one S3 server of either engine, on a volume of its own."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import minio, seaweedfs, stateful_store
from mlflow_operator.model.server import EmbeddedArtifactStore, Engine, PodSettings, ServerRef
from mlflow_operator.model.stateful_store import Store
from mlflow_operator.model.volumes import claim

PORT = 9000


def objects(
    owner: ServerRef, store: EmbeddedArtifactStore, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; no pod unless `running`.

    The volume and the credentials are data, made by `data` and `credentials`.
    """
    names = owner.names
    engine = seaweedfs if store.engine is Engine.SEAWEEDFS else minio
    shape = Store(
        name=names.artifact_store,
        component=labels.ARTIFACT_STORE_POD,
        claim=names.artifact_store_data,
        port_name="s3",
        port=PORT,
        user=engine.USER,
        grace=engine.GRACE_SECONDS,
        container=engine.container(owner, store, PORT),
        volumes=engine.volumes(owner),
    )
    return stateful_store.objects(owner, shape, settings, running=running)


def data(owner: ServerRef, store: EmbeddedArtifactStore) -> Object:
    """The volume's claim."""
    return claim(owner, owner.names.artifact_store_data, labels.ARTIFACT_STORE_POD, store.volume)


def endpoint(owner: ServerRef) -> str:
    """Where the server and the operator reach it."""
    return f"http://{owner.names.artifact_store}.{owner.namespace}.svc:{PORT}"
