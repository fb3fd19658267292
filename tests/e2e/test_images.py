"""Images that cannot be pulled at a server's first start. test_image_change tests the image of a running server."""

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.server import SMALL_RESOURCES, Server, small_spec
from tests.e2e.shared_stores import Platform

MIRROR = "mirror.test:5000/team"


def test_unavailable_images_are_reported_and_can_be_corrected(ns: Kube, platform: Platform) -> None:
    """The component's condition reports each, with what to check. A Job that cannot start does not block the change."""
    database = f"{MIRROR}/postgres:17"
    server = Server(ns).apply(
        small_spec(
            image=f"{MIRROR}/mlflow:typo",
            database={"embedded": {"image": database, "resources": SMALL_RESOURCES}},
            artifacts=platform.bucket_spec(ns, f"images-{ns.namespace}"),
        )
    )
    condition = server.wait_for("DatabaseReady", "False", "ImagePullFailed", within=timeouts.READY_SECONDS)
    assert database in condition["message"]
    assert "imagePullSecrets" in condition["message"]
    server.patch_spec(database={"embedded": {"image": None}})
    condition = server.wait_for("SchemaReady", "False", "ImagePullFailed", within=timeouts.READY_SECONDS)
    assert "mlflow:typo" in condition["message"]
    server.patch_spec(image=None)
    server.wait_ready()
