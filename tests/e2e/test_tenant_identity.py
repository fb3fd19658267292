"""A namespace that is created again for another tenant, who must not get the data of the first one.

Exploit H4 of the security review, with the tenants' permissions. tests/integration/test_server_platform.py tests more
cases of the database.
"""

import pytest
from botocore.exceptions import ClientError

from tests.e2e import timeouts
from tests.e2e.kube import CommandError
from tests.e2e.server import eventually
from tests.e2e.tenants import Login, Tenancy, access_key, content

GROUP = "tenant_identity"


def test_recreated_namespace_gets_data_only_with_an_adoption(tenancy: Tenancy) -> None:
    """Neither the database nor the artifacts, also with the same name and with the old passwords and keys."""
    kube, stores = tenancy.kube, tenancy.stores
    tenancy.offer(is_default=True)
    alice = tenancy.create_tenant("alice")
    first = alice.server()
    tenancy.wait_for_stores(first)
    old_login, old_key = Login.of(first), access_key(first)
    object_key = f"{tenancy.prefix(first)}model.bin"
    old_login.query(stores, "CREATE TABLE secrets AS SELECT 'of alice' AS text")
    stores.minio.client(old_key.id, old_key.secret).put_object(
        Bucket=tenancy.bucket, Key=object_key, Body=b"of alice"
    )
    kube.kubectl("delete", "namespace", alice.namespace, "--wait=false")
    eventually(
        "the namespace is gone",
        lambda: kube.get("Namespace", alice.namespace) is None,
        timeouts.DELETION_SECONDS,
    )

    bob = tenancy.give_namespace(alice.namespace, "bob")
    server = bob.server()
    for condition_type in ("DatabaseReady", "ArtifactStoreReady"):
        condition = server.wait_for(
            condition_type, "False", "AdoptionRequired", within=timeouts.RESYNC_SECONDS
        )
        assert f"{bob.namespace}/tracking" in condition["message"]
        assert "spec.adoptions" in condition["message"]
    with pytest.raises(CommandError, match="password authentication failed"):
        Login.of(server).query(stores, "SELECT text FROM secrets")
    new_key = access_key(server)
    with pytest.raises(ClientError):
        stores.minio.client(new_key.id, new_key.secret).get_object(Bucket=tenancy.bucket, Key=object_key)

    # A copy of the Secrets, which the previous team may have kept, gives the new server nothing either.
    for name, values in {
        server.names.database_secret: {"username": old_login.user, "password": old_login.password},
        server.names.artifacts_secret: {"accessKeyID": old_key.id, "secretAccessKey": old_key.secret},
    }.items():
        bob.kube.patch("Secret", name, {"stringData": values})
    server.patch_spec(workers=2)
    for condition_type in ("DatabaseReady", "ArtifactStoreReady"):
        server.wait_for(condition_type, "False", "AdoptionRequired", within=timeouts.RESYNC_SECONDS)
    # Deletion of the new server deletes nothing of the old one.
    server.patch_spec(deletionPolicy="Delete")
    eventually(
        "it has a finalizer", lambda: server.resource()["metadata"].get("finalizers"), timeouts.STATUS_SECONDS
    )
    bob.kube.kubectl("delete", "mlflowserver", server.name, "--wait=false")
    eventually(
        "the server is gone",
        lambda: bob.kube.get("MLflowServer", server.name) is None,
        timeouts.DELETION_SECONDS,
    )
    assert content(stores.minio.client(), tenancy.bucket, object_key) == b"of alice"

    tenancy.offer(is_default=True, adoptions=[f"{bob.namespace}/tracking"])
    server = bob.server()
    tenancy.wait_for_stores(server)
    assert Login.of(server).query(stores, "SELECT text FROM secrets") == "of alice\n"
    new_key = access_key(server)
    client = stores.minio.client(new_key.id, new_key.secret)
    assert content(client, tenancy.bucket, object_key) == b"of alice"
