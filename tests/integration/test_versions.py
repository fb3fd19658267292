"""Versions and images: a server keeps its version, and an image that cannot be pulled takes nothing away.

The simulated node cannot pull the images in `kwok.UNAVAILABLE_IMAGES`.
"""

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server, eventually

MIRROR = "mirror.test:5000/team"


def image(server: Server) -> str:
    """The server's image in its Deployment."""
    deployment = server.need(kinds.DEPLOYMENT, server.names.deployment)
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_version_is_kept_when_the_spec_names_none(
    operator: Operator, admin: Client, namespace: str, spec: Object
) -> None:
    """An operator whose default is another version finds `status.version`, and stays with it.

    3.17.1 stands for the older version: it has the same schema.
    """
    assert DEFAULT_VERSION != "3.17.1"
    server = Server(admin, namespace).apply({**spec, "version": "3.17.1"}).ready()
    assert server.status["version"] == "3.17.1"
    kept = image(server)
    assert kept.endswith(":v3.17.1-full")

    server.change(version=None)
    server.until("Ready")
    assert server.status["version"] == "3.17.1"
    assert image(server) == kept

    # An image of the user's own is asked before it serves; until it answers, the version that serves stays.
    server.change(image=f"{MIRROR}/mlflow:v3.17.2-full")
    condition = server.until("UpgradeReady", "False", "ImagePullFailed")
    assert f"{MIRROR}/mlflow:v3.17.2-full can't be pulled" in condition["message"]
    assert image(server) == kept
    assert server.conditions()["ServerAvailable"]["status"] == "True"

    server.change(image=None)
    server.ready()
    assert (server.status["version"], image(server)) == ("3.17.1", kept)


def test_image_that_cannot_be_pulled_is_named(operator: Operator, admin: Client, namespace: str) -> None:
    """In the condition of the part that needs it, with what to check."""
    wrong = f"{MIRROR}/postgres:17"
    server = Server(admin, namespace).apply({"database": {"embedded": {"image": wrong}}})
    condition = server.until("DatabaseReady", "False", "ImagePullFailed")
    assert wrong in condition["message"]
    assert "imagePullSecrets" in condition["message"]

    server.change(database={"embedded": {"image": None}})

    server.stores_run()


def test_mistyped_first_image_can_be_corrected(
    operator: Operator, admin: Client, namespace: str, spec: Object, postgres: Postgres
) -> None:
    """A migration Job that can never start blocks nothing: it is replaced by one with the corrected image."""
    database = spec["database"]["external"]["databaseName"]
    postgres.empty(database)
    server = Server(admin, namespace).apply({**spec, "image": f"{MIRROR}/mlflow:typo"})
    condition = server.until("SchemaReady", "False", "ImagePullFailed")
    assert "mlflow:typo" in condition["message"]

    server.change(image=None)

    def images() -> list[str]:
        jobs = [job for job in server.objects(kinds.JOB) if not job["metadata"].get("deletionTimestamp")]
        return [job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs]

    def is_replaced() -> bool:
        found = images()
        return len(found) == 1 and "typo" not in found[0]

    eventually("one Job is left, with another image", is_replaced)
    # What the Job's pod would do.
    postgres.migrate(database)
    server.ready()


def test_new_image_that_cannot_be_pulled_leaves_the_server_running(server: Server) -> None:
    """The old pod stays until a new one can start. Going back is enough to recover."""
    before = {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)}
    assert len(before) == 1
    server.change(image=f"{MIRROR}/mlflow:v3.17.2-full")
    server.until("Ready", "False", "ImagePullFailed")
    assert server.conditions()["ServerAvailable"]["status"] == "True"
    assert before <= {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)}
    server.change(image=None)
    server.ready()
    eventually(
        "only the old pod is left",
        lambda: {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)} == before,
    )
