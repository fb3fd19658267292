"""What clients of a server are given, as its choice of access changes."""

import pytest

from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, World

S3: Object = EXTERNAL["artifacts"]["s3"]


def status(world: World) -> Object:
    """The server's."""
    live = world.get("MLflowServer", "a")
    assert live
    found: Object = live["status"]
    return found


@pytest.fixture
async def external(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server on a database and a bucket of somebody else's, Ready and at rest."""
    return await World.on_external_stores(monkeypatch)


async def test_direct_clients_have_the_servers_keys_until_they_shall_not(external: World) -> None:
    """The status names their Secret; a key that changes reaches it; afterwards it holds nothing."""
    assert external.get("Secret", "a-client") is None
    external.change(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external.until_settled()
    keys = external.secret(S3["credentialsSecretRef"]["name"])
    given = {"AWS_ACCESS_KEY_ID": keys["accessKeyID"], "AWS_SECRET_ACCESS_KEY": keys["secretAccessKey"]}
    assert external.secret("a-client") == given
    assert status(external)["clientSecretRef"] == {"name": "a-client"}

    external.put_secret(S3["credentialsSecretRef"]["name"], accessKeyID="other", secretAccessKey="keys")
    await external.until_settled()
    assert external.secret("a-client")["AWS_ACCESS_KEY_ID"] == "other"

    external.change(artifacts={"access": "Proxied", "s3": S3})
    await external.until_settled()
    assert {*external.secret("a-client").values()} == {""}
    assert "clientSecretRef" not in status(external)


async def test_a_secret_of_somebody_elses_is_not_taken_for_the_clients(external: World) -> None:
    """It is left as it is, and the condition says whose name it is."""
    external.put_secret("a-client", AWS_ACCESS_KEY_ID="theirs")
    external.change(storageChangePolicy="Allow", artifacts={"access": "Direct", "s3": S3})
    await external.reconcile()
    assert external.condition("ServerAvailable")[1] == "NameConflict"
    assert external.secret("a-client") == {"AWS_ACCESS_KEY_ID": "theirs"}
