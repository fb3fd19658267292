"""Versions and images: a server keeps its version, and an image that cannot be pulled does not affect it.

The simulated node cannot pull the images in `kwok.UNAVAILABLE_IMAGES`.
"""

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server
from tests.polling import eventually

MIRROR = "mirror.test:5000/team"


def deployment_image(server: Server) -> str:
    """Return the server's image in its Deployment."""
    deployment = server.require(kinds.DEPLOYMENT, server.names.deployment)
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_version_is_kept_when_spec_has_none(
    operator: Operator, admin: Client, namespace: str, spec: Object, postgres: Postgres
) -> None:
    """An operator with another default version keeps `status.version`."""
    assert DEFAULT_VERSION != "3.17.1"
    database = spec["database"]["external"]["databaseName"]
    postgres.drop_schema(database)
    postgres.migrate(database, "3.17.1")
    server = Server(admin, namespace).apply({**spec, "version": "3.17.1"}).wait_ready()
    assert server.status["version"] == "3.17.1"
    image_before = deployment_image(server)
    assert image_before.endswith(":v3.17.1-full")

    server.patch_spec(version=None)
    server.wait_for("Ready")
    assert server.status["version"] == "3.17.1"
    assert deployment_image(server) == image_before

    # A preflight Job checks a custom image first; until it succeeds, the running version stays.
    server.patch_spec(image=f"{MIRROR}/mlflow:v3.17.2-full")
    condition = server.wait_for("UpgradeReady", "False", "ImagePullFailed")
    assert f"{MIRROR}/mlflow:v3.17.2-full cannot be pulled" in condition["message"]
    assert deployment_image(server) == image_before
    assert server.conditions()["ServerAvailable"]["status"] == "True"

    server.patch_spec(image=None)
    server.wait_ready()
    assert (server.status["version"], deployment_image(server)) == ("3.17.1", image_before)


def test_unavailable_store_image_is_reported(operator: Operator, admin: Client, namespace: str) -> None:
    """The component's condition names the image and what to check."""
    unavailable = f"{MIRROR}/postgres:17"
    server = Server(admin, namespace).apply({"database": {"embedded": {"image": unavailable}}})
    condition = server.wait_for("DatabaseReady", "False", "ImagePullFailed")
    assert unavailable in condition["message"]
    assert "imagePullSecrets" in condition["message"]

    server.patch_spec(database={"embedded": {"image": None}})

    server.wait_stores_running()


def test_unavailable_first_image_can_be_corrected(
    operator: Operator, admin: Client, namespace: str, spec: Object, postgres: Postgres
) -> None:
    """A migration Job that cannot start does not block the change: a Job with the corrected image replaces it."""
    database = spec["database"]["external"]["databaseName"]
    postgres.drop_schema(database)
    server = Server(admin, namespace).apply({**spec, "image": f"{MIRROR}/mlflow:typo"})
    condition = server.wait_for("SchemaReady", "False", "ImagePullFailed")
    assert "mlflow:typo" in condition["message"]

    server.patch_spec(image=None)

    def images() -> list[str]:
        jobs = [job for job in server.objects(kinds.JOB) if not job["metadata"].get("deletionTimestamp")]
        return [job["spec"]["template"]["spec"]["containers"][0]["image"] for job in jobs]

    def is_replaced() -> bool:
        found = images()
        return len(found) == 1 and "typo" not in found[0]

    eventually("one Job is left, with another image", is_replaced)
    # The pod of the Job is simulated, so the test sets the schema revision, of which the operator gets no event.
    postgres.migrate(database)
    server.trigger_reconcile()
    server.wait_ready()


def test_unavailable_new_image_does_not_affect_the_server(server: Server) -> None:
    """The old pod stays until a new pod can start. Reverting the change is enough to recover."""
    before = {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)}
    assert len(before) == 1
    server.patch_spec(image=f"{MIRROR}/mlflow:v3.17.2-full")
    server.wait_for("Ready", "False", "ImagePullFailed")
    assert server.conditions()["ServerAvailable"]["status"] == "True"
    assert before <= {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)}
    server.patch_spec(image=None)
    server.wait_ready()
    eventually(
        "only the old pod is left",
        lambda: {pod["metadata"]["uid"] for pod in server.objects(kinds.POD)} == before,
    )
