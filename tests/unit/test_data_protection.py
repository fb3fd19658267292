"""A generated credential is never generated a second time while a volume needs the first one."""

import pytest

from mlflow_operator.kube import labels
from tests.unit.simulation import SimulatedCluster


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("secret", "claim"), [("a-database", "a-postgres-data"), ("a-artifacts", "a-artifacts-data")]
)
async def test_credential_is_not_generated_again_while_its_volume_exists(
    ready_server: SimulatedCluster, secret: str, claim: str, labelled: bool
) -> None:
    """Even if the volume has lost its labels. The store would reject the new password."""
    del ready_server.api.objects["Secret", secret]
    if not labelled:
        ready_server.api.edit("PersistentVolumeClaim", claim, lambda obj: obj["metadata"].pop("labels"))
    for _ in range(3):
        await ready_server.reconcile()
    assert ready_server.get("Secret", secret) is None
    status, reason, message = ready_server.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretNotFound")
    assert f'"{secret}"' in message
    assert f'"{claim}"' in message
    assert "elete" not in message
    command = f"kubectl label -n team persistentvolumeclaim/{claim}"
    assert (command in message) != labelled


async def test_secret_that_lost_its_labels_is_not_reported_as_missing(ready_server: SimulatedCluster) -> None:
    """It exists, and the message says how the server finds it again."""
    before = ready_server.secret("a-database")
    ready_server.api.edit("Secret", "a-database", lambda obj: obj["metadata"].pop("labels"))
    await ready_server.reconcile()
    status, reason, message = ready_server.condition("CredentialsReady")
    assert (status, reason) == ("False", "NameConflict")
    assert "kubectl label -n team secret/a-database app.kubernetes.io/managed-by=mlflow-operator" in message
    assert "elete" not in message
    assert ready_server.secret("a-database") == before
    added = {labels.MANAGED_BY: labels.OPERATOR, labels.SERVER: "a"}
    ready_server.api.edit("Secret", "a-database", lambda obj: obj["metadata"].update(labels=added))
    await ready_server.reconcile_until_ready()


async def test_volume_that_lost_its_labels_is_not_reported_as_missing(ready_server: SimulatedCluster) -> None:
    """Nor is it replaced."""
    ready_server.api.edit(
        "PersistentVolumeClaim", "a-postgres-data", lambda obj: obj["metadata"].pop("labels")
    )
    await ready_server.reconcile()
    status, reason, message = ready_server.condition("DatabaseReady")
    assert (status, reason) == ("False", "NameConflict")
    assert "persistentvolumeclaim/a-postgres-data" in message


async def test_lost_volume_message_does_not_advise_to_delete_the_secret(
    ready_server: SimulatedCluster,
) -> None:
    """If the volume is found again, nothing else gives access to it."""
    del ready_server.api.objects["PersistentVolumeClaim", "a-postgres-data"]
    await ready_server.reconcile()
    _, reason, message = ready_server.condition("DatabaseReady")
    assert reason == "VolumeLost"
    assert "elete" not in message


async def test_embedded_password_is_not_generated_again_after_a_provisioned_database(
    ready_server: SimulatedCluster,
) -> None:
    """The Secret was lost while the server used the other database, and with it the password for the volume."""
    provision = {"host": "shared", "adminSecretRef": {"name": "admin"}}
    ready_server.put_secret("admin", username="postgres", password="admin-password")
    ready_server.update_spec(storageChangePolicy="Allow", database={"provision": provision})
    await ready_server.reconcile_until_ready()
    ready_server.api.edit("Secret", "a-database", lambda obj: obj["data"].pop("embeddedPassword"))
    ready_server.update_spec(database={"embedded": {}})
    await ready_server.reconcile()
    status, reason, message = ready_server.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretKeyMissing")
    assert '"embeddedPassword"' in message
    assert '"a-postgres-data"' in message
    assert "elete" not in message
    assert ready_server.secret("a-database")["host"] == "shared"


@pytest.mark.parametrize("volume", [True, False])
async def test_message_advises_to_delete_a_secret_only_if_no_volume_needs_it(volume: bool) -> None:
    """After a switch from the embedded database, the Secret contains the only copy of its password."""
    provision = {"host": "shared", "adminSecretRef": {"name": "admin"}}
    simulation = SimulatedCluster({} if volume else {"database": {"provision": provision}})
    simulation.put_secret("admin", username="postgres", password="admin-password")
    await simulation.reconcile_until_ready()
    simulation.update_spec(storageChangePolicy="Allow", database={"provision": provision})
    await simulation.reconcile_until_ready()
    simulation.api.edit("Secret", "a-database", lambda obj: obj["data"].pop("password"))
    await simulation.reconcile()
    _, reason, message = simulation.condition("CredentialsReady")
    assert reason == "SecretKeyMissing"
    assert ("delete the whole Secret" in message) != volume
