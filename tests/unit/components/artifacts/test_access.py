"""The Secret for clients of a server, depending on `artifacts.access`."""

import pytest

from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, SimulatedCluster

S3: Object = EXTERNAL["artifacts"]["s3"]


def status(simulation: SimulatedCluster) -> Object:
    """The status of the server."""
    live = simulation.get("MLflowServer", "a")
    assert live
    value: Object = live["status"]
    return value


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server on an external database and bucket."""
    return await SimulatedCluster.with_external_stores()


async def test_client_secret_has_the_server_key_with_direct_access_only(simulation: SimulatedCluster) -> None:
    """The status references the Secret, and it follows a changed key. With proxied access it has no values."""
    assert simulation.get("Secret", "a-client") is None
    simulation.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await simulation.reconcile_until_stable()
    keys = simulation.secret(S3["credentialsSecretRef"]["name"])
    expected = {"AWS_ACCESS_KEY_ID": keys["accessKeyID"], "AWS_SECRET_ACCESS_KEY": keys["secretAccessKey"]}
    assert simulation.secret("a-client") == expected
    assert status(simulation)["clientSecretRef"] == {"name": "a-client"}

    simulation.put_secret(S3["credentialsSecretRef"]["name"], accessKeyID="other", secretAccessKey="keys")
    await simulation.reconcile_until_stable()
    assert simulation.secret("a-client")["AWS_ACCESS_KEY_ID"] == "other"

    simulation.update_spec(artifacts={"access": "Proxied", "s3": S3})
    await simulation.reconcile_until_stable()
    assert {*simulation.secret("a-client").values()} == {""}
    assert "clientSecretRef" not in status(simulation)


async def test_existing_secret_of_another_owner_is_not_overwritten(simulation: SimulatedCluster) -> None:
    """It is not changed, and the condition reports the name conflict."""
    simulation.put_secret("a-client", AWS_ACCESS_KEY_ID="theirs")
    simulation.update_spec(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await simulation.reconcile()
    assert simulation.condition("ServerAvailable")[1] == "NameConflict"
    assert simulation.secret("a-client") == {"AWS_ACCESS_KEY_ID": "theirs"}
