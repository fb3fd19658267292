"""A server keeps its version: an upgrade of the operator never migrates anything by itself."""

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, small
from tests.e2e.timeouts import SETTLED


def image(deployment: Object) -> str:
    """The server's image in its Deployment."""
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_the_version_is_kept_when_the_spec_names_none(ns: Kube) -> None:
    """An operator tested with another version finds `status.version`, and stays with it.

    3.17.1 stands for the older release: same schema; the image is the tested one under a name of its own.
    """
    pinned = ns.settings.pins["IMAGE_MLFLOW"]
    server = Server(ns).apply(small(version="3.17.1", image=pinned)).ready()
    assert server.status["version"] == "3.17.1"
    assert "version" in server.live()["spec"]

    server.change(version=None)
    server.until("Ready", within=SETTLED)
    assert server.status["version"] == "3.17.1"
    assert image(ns.need("Deployment", server.names.deployment)) == pinned

    # without an image of its own the tag follows the version it keeps, not the operator's; it is asked before it serves
    server.change(image=None)
    told = server.until("UpgradeReady", "False", "ImagePullFailed", within=SETTLED)
    assert ":v3.17.1-full can't be pulled" in told["message"]
    assert image(ns.need("Deployment", server.names.deployment)) == pinned
    assert server.conditions()["ServerAvailable"]["status"] == "True"
