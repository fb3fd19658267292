"""Clusters that pull from a mirror, with a login: every pod we make, and every image of it, can be told."""

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import LITTLE, Server, eventually, small

MIRROR = "mirror.test:5000/team"


def test_every_pod_has_the_pull_secret_and_its_own_image(ns: Kube) -> None:
    """MLflow, migration, Postgres and MinIO; digests and ports in a reference included."""
    pins = ns.settings.pins
    server = Server(ns).apply(
        small(
            version="3.17.2",
            image=pins["IMAGE_MLFLOW"],
            podTemplate={"spec": {"imagePullSecrets": [{"name": "mirror-login"}]}},
            database={"embedded": {"image": pins["IMAGE_POSTGRES"], "resources": LITTLE}},
            artifacts={"embedded": {"image": pins["IMAGE_MINIO"], "resources": LITTLE}},
        )
    )
    server.ready()
    pods = server.pods()
    found = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert found == {"server", "database", "artifact-store", "migration"}
    for pod in pods:
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror-login"}], pod["metadata"]["name"]


def test_an_image_that_cannot_be_pulled_is_named(ns: Kube) -> None:
    """In the condition of the part that needs it, with what to check."""
    image = f"{MIRROR}/postgres:17"
    server = Server(ns).apply(small(database={"embedded": {"image": image, "resources": LITTLE}}))
    told = server.until("DatabaseReady", "False", "ImagePullFailed", within=timeouts.NOTICED)
    assert image in told["message"]
    assert "imagePullSecrets" in told["message"]

    server.change(database={"embedded": {"image": None}})
    server.ready()


def test_a_mistyped_first_image_can_be_mended(ns: Kube) -> None:
    """The migration Job that can never start stands in nobody's way."""
    server = Server(ns).apply(small(image=f"{MIRROR}/mlflow:typo"))
    told = server.until("SchemaReady", "False", "ImagePullFailed", within=timeouts.NOTICED)
    assert "mlflow:typo" in told["message"]
    server.change(image=None)
    server.ready()


def test_a_broken_new_image_leaves_the_old_server_running(ns: Kube) -> None:
    """The old pod serves until a new one is ready; pointing back is enough."""
    server = Server(ns).apply(small()).ready()
    old = server.pod()
    server.change(image=f"{MIRROR}/mlflow:v3.17.2-full")
    server.until("Ready", "False", "ImagePullFailed", within=timeouts.NOTICED)
    server.answers()
    assert old["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in server.pods("server")}
    server.change(image=None)
    server.ready()
    eventually("one server pod is left", lambda: len(server.pods("server")) == 1, timeouts.GONE)
