"""Images that cannot be pulled at a server's first start. test_new_image tests an image of a server that serves."""

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import LITTLE, Server, small
from tests.e2e.shared_stores import Platform

MIRROR = "mirror.test:5000/team"


def test_images_that_cannot_be_pulled_are_named_and_can_be_corrected(ns: Kube, platform: Platform) -> None:
    """In the condition of the part that needs it, with what to check; no Job that can never start is in the way."""
    database = f"{MIRROR}/postgres:17"
    server = Server(ns).apply(
        small(
            image=f"{MIRROR}/mlflow:typo",
            database={"embedded": {"image": database, "resources": LITTLE}},
            artifacts=platform.bucket(f"images-{ns.namespace}"),
        )
    )
    condition = server.until("DatabaseReady", "False", "ImagePullFailed", within=timeouts.NOTICED)
    assert database in condition["message"]
    assert "imagePullSecrets" in condition["message"]
    server.change(database={"embedded": {"image": None}})
    condition = server.until("SchemaReady", "False", "ImagePullFailed", within=timeouts.NOTICED)
    assert "mlflow:typo" in condition["message"]
    server.change(image=None)
    server.ready()
