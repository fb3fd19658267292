"""The Secret for clients of a server, depending on `artifacts.access`."""

from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, SimulatedCluster

S3: Object = EXTERNAL["artifacts"]["s3"]


def status(simulation: SimulatedCluster) -> Object:
    """The status of the server."""
    live = simulation.get("MLflowServer", "a")
    assert live
    value: Object = live["status"]
    return value


async def test_client_secret_has_the_server_key_with_direct_access_only(
    external_stores: SimulatedCluster,
) -> None:
    """The status references the Secret, and it follows a changed key. With proxied access it has no values."""
    assert external_stores.get("Secret", "a-client") is None
    external_stores.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external_stores.reconcile_until_stable()
    keys = external_stores.secret(S3["credentialsSecretRef"]["name"])
    expected = {"AWS_ACCESS_KEY_ID": keys["accessKeyID"], "AWS_SECRET_ACCESS_KEY": keys["secretAccessKey"]}
    assert external_stores.secret("a-client") == expected
    assert status(external_stores)["clientSecretRef"] == {"name": "a-client"}

    external_stores.put_secret(
        S3["credentialsSecretRef"]["name"], accessKeyID="other", secretAccessKey="keys"
    )
    await external_stores.reconcile_until_stable()
    assert external_stores.secret("a-client")["AWS_ACCESS_KEY_ID"] == "other"

    external_stores.update_spec(artifacts={"access": "Proxied", "s3": S3})
    await external_stores.reconcile_until_stable()
    assert {*external_stores.secret("a-client").values()} == {""}
    assert "clientSecretRef" not in status(external_stores)


async def test_rejected_removal_of_the_client_keys_is_repeated(external_stores: SimulatedCluster) -> None:
    """The status no longer names the Secret then, and a Secret without a reference is usually not read."""
    external_stores.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external_stores.reconcile_until_ready()
    external_stores.update_spec(artifacts={"access": "Proxied", "s3": S3})
    external_stores.api.errors_by_kind["Secret"] = Forbidden("apply: 403 denied the request")
    await external_stores.reconcile()
    assert "clientSecretRef" not in status(external_stores)
    assert {*external_stores.secret("a-client").values()} != {""}
    del external_stores.api.errors_by_kind["Secret"]
    await external_stores.reconcile()
    assert {*external_stores.secret("a-client").values()} == {""}


async def test_client_keys_are_removed_although_the_status_is_lost(external_stores: SimulatedCluster) -> None:
    """For example if the process ended before it wrote the first status, and the spec has changed since then."""
    external_stores.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external_stores.reconcile_until_ready()
    external_stores.update_spec(artifacts={"access": "Proxied", "s3": S3})
    external_stores.api.edit("MLflowServer", "a", lambda server: server.pop("status"))
    await external_stores.reconcile_until_ready()
    assert {*external_stores.secret("a-client").values()} == {""}


async def test_existing_secret_of_another_owner_is_not_overwritten(external_stores: SimulatedCluster) -> None:
    """It is not changed, and the condition reports the name conflict."""
    external_stores.put_secret("a-client", AWS_ACCESS_KEY_ID="theirs")
    external_stores.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external_stores.reconcile()
    assert external_stores.condition("ServerAvailable")[1] == "NameConflict"
    assert external_stores.secret("a-client") == {"AWS_ACCESS_KEY_ID": "theirs"}


async def test_upload_arguments_that_are_no_object_are_a_condition(external_stores: SimulatedCluster) -> None:
    """Each upload of MLflow would fail. A corrected value is accepted."""
    name = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"
    external_stores.update_spec(env=[{"name": name, "value": "[]"}])
    await external_stores.reconcile()
    _, reason, message = external_stores.condition("ArtifactStoreReady")
    assert reason == "InvalidResource"
    assert f"{name} in spec.env is not a JSON object" in message
    external_stores.update_spec(env=[{"name": name, "value": "{}"}])
    await external_stores.reconcile_until_stable()
    assert external_stores.condition("ArtifactStoreReady")[0] == "True"
