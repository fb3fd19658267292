"""Stores of a platform and a tenant that tries to reach the data of others, with the tenant's permissions.

Exploits C2, C3, H1 and M4 of the security review: an S3 that lies about listings, pods with our labels, foreign
buckets, forged markers, changed Secrets and the rights of a database's owner.
"""

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.signed_request import AccessKey, SignedRequests
from mlflow_operator.kube import labels
from tests.e2e import timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, secret
from tests.e2e.kube import CommandError, Object
from tests.e2e.rogue_stores import RELAY_PORT
from tests.e2e.server import SMALL_RESOURCES, Server, eventually
from tests.e2e.tenants import FOREIGN_DATABASE, Login, Tenancy, Tenant, access_key, content, start_rogue

GROUP = "tenant_stores"

MARKER_KEY = "zzz-made-by-mlflow-operator"
"""Key under its prefix that permits the deletion of what a server without a platform has stored."""

VICTIM = "victims/model.bin"
WIDENING = "e2e.mlflow-operator.dev/widening"
"""Label of the pods that claim to be a server's."""


@pytest.fixture(scope="module")
def alice(_tenancy: Tenancy) -> Tenant:
    """The attacker."""
    _tenancy.offer(is_default=True)
    return _tenancy.create_tenant("alice")


@pytest.fixture(scope="module")
def mine(alice: Tenant) -> Server:
    """The attacker's server."""
    return alice.server(deletionPolicy="Delete")


@pytest.fixture(scope="module")
def theirs(_tenancy: Tenancy, mine: Server) -> Server:
    """A server of another tenant, with an artifact."""
    server = _tenancy.create_tenant("bob").server()
    for each in (mine, server):
        _tenancy.wait_for_stores(each)
    client = _tenancy.stores.minio.client()
    client.put_object(Bucket=_tenancy.bucket, Key=f"{_tenancy.prefix(server)}model.bin", Body=b"theirs")
    return server


@pytest.fixture(scope="module")
def backups(_tenancy: Tenancy) -> str:
    """A bucket of the platform team in the same MinIO, with a dump."""
    name, client = f"{_tenancy.name}-backups", _tenancy.stores.minio.client()
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="dump.sql", Body=b"dump")
    return name


async def test_pod_with_the_labels_of_a_server_does_not_extend_its_policy(
    tenancy: Tenancy, alice: Tenant, mine: Server, theirs: Server, backups: str
) -> None:
    """Pods decide with their environment neither about a platform's store nor about one with its own administrator.

    Claims of one pod at a time: a policy that overlaps with that of another server is refused as a whole, and would
    hide that the operator believes another claim. No policy of a server covers the bucket of the platform team.
    """
    minio = tenancy.stores.minio
    alice.kube.apply(secret("minio-admin", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    own_bucket = f"{tenancy.name}-own"
    s3 = {"endpoint": minio.endpoint, "bucket": own_bucket, "prefix": "own"}
    own = alice.server(
        "own", database=FOREIGN_DATABASE, artifacts={"s3": {**s3, "adminSecretRef": {"name": "minio-admin"}}}
    )
    own.wait_for("ArtifactStoreReady", within=timeouts.STATUS_SECONDS)
    expected = {
        mine.name: resources(tenancy.bucket, tenancy.prefix(mine)),
        own.name: resources(own_bucket, "own/"),
    }
    claims = (
        f"s3://{backups}",
        f"s3://{backups}/*",
        "s3://*",
        "s3://*/",
        f"s3://{tenancy.bucket}",
        f"s3://{tenancy.bucket}/{tenancy.prefix(theirs)}",
    )
    for number, claim in enumerate(claims):
        for server in (mine, own):
            alice.kube.apply(widening_pod(server, claim, minio.endpoint))
            server.patch_spec(workers=2 + number)
            server.wait_for("ArtifactStoreReady", within=timeouts.STATUS_SECONDS)
            assert await tenancy.policy_resources(server) == expected[server.name], claim
        # The next claim needs the names. And a deletion of the server waits for its pods.
        alice.kube.kubectl("delete", "pods", "-l", f"{WIDENING}=true")


def resources(bucket: str, prefix: str) -> set[str]:
    """Return the resources in the policy of a server's key."""
    arn = f"arn:aws:s3:::{bucket}"
    return {arn, f"{arn}/{prefix}*"}


def widening_pod(server: Server, destination: str, endpoint: str) -> Object:
    """Return a pod that claims to be the server's and to store artifacts elsewhere. It never starts."""
    env = {"MLFLOW_ARTIFACTS_DESTINATION": destination, "MLFLOW_S3_ENDPOINT_URL": endpoint}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"widen-{server.name}",
            "labels": {
                labels.MANAGED_BY: labels.OPERATOR,
                labels.SERVER: server.name,
                labels.COMPONENT: labels.SERVER_POD,
                WIDENING: "true",
            },
        },
        "spec": {
            "nodeSelector": {"e2e.mlflow-operator.dev/no-node": "true"},
            "containers": [
                {
                    "name": "mlflow",
                    "image": server.kube.settings.pins["IMAGE_BUSYBOX"],
                    "env": [{"name": name, "value": value} for name, value in env.items()],
                    "resources": SMALL_RESOURCES,
                    "securityContext": {**RESTRICTED_SECURITY_CONTEXT, "runAsUser": 1000},
                }
            ],
        },
    }


def test_relay_that_lies_about_listings_deletes_no_other_object(tenancy: Tenancy, alice: Tenant) -> None:
    """The tenant administers the store itself, so that everything else works. It can only harm its own server."""
    minio, bucket = tenancy.stores.minio, f"{tenancy.name}-relayed"
    client = minio.client()
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=VICTIM, Body=b"victim")
    rogue = start_rogue(alice, tenancy.stores, VICTIM)
    alice.kube.apply(secret("relay-admin", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3 = {
        "endpoint": f"http://{rogue.host}:{RELAY_PORT}",
        "bucket": bucket,
        "prefix": "mine",
        "addressingStyle": "Path",
        "adminSecretRef": {"name": "relay-admin"},
    }
    server = alice.server("relayed", deletionPolicy="Delete", database=FOREIGN_DATABASE, artifacts={"s3": s3})
    server.wait_for("ArtifactStoreReady", within=timeouts.STATUS_SECONDS)
    assert any("list-canned-policies" in line for line in rogue.lines())
    messages = delete(alice, server)
    assert content(client, bucket, VICTIM) == b"victim", "the operator deleted what the relay listed"
    (message,) = messages
    assert 'lists objects that are not under "mine/"' in message


def delete(tenant: Tenant, *servers: Server) -> list[str]:
    """Delete servers, let those go whose data cannot be deleted, and return what these reported."""

    def remaining() -> dict[str, Object]:
        found = [tenant.kube.get("MLflowServer", server.name) for server in servers]
        return {resource["metadata"]["name"]: resource for resource in found if resource}

    def messages() -> list[str]:
        return [
            condition["message"]
            for resource in remaining().values()
            for condition in resource["status"]["conditions"]
            if condition["type"] == "Ready" and condition["reason"] == "DeletionBlocked"
        ]

    tenant.kube.kubectl("delete", "mlflowservers", *(server.name for server in servers), "--wait=false")
    eventually(
        "each server is gone or blocked",
        lambda: len(messages()) == len(remaining()),
        timeouts.ROLLOUT_SECONDS,
    )
    reported = messages()
    for name in remaining():
        tenant.kube.kubectl("annotate", "mlflowserver", name, "mlflow-operator.dev/skip-data-deletion=true")
    eventually("the servers are gone", lambda: not remaining(), timeouts.DELETION_SECONDS)
    return reported


def test_owner_of_a_database_is_confined_to_it(tenancy: Tenancy, mine: Server, theirs: Server) -> None:
    """The limit of connections is one of the login, which its owner cannot change."""
    stores, login, other = tenancy.stores, Login.of(mine), Login.of(theirs)
    login.query(stores, f'ALTER DATABASE "{login.database}" CONNECTION LIMIT -1')
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user"
    assert int(login.query(stores, limit)) > 0
    owner, other_owner = login.database, other.database
    attempts = {
        f'ALTER ROLE "{login.user}" CONNECTION LIMIT -1': "permission denied",
        f'ALTER ROLE "{owner}" LOGIN': "permission denied",
        f"COMMENT ON ROLE \"{login.user}\" IS 'mine'": "permission denied",
        f'SET ROLE "{other_owner}"': "permission denied",
        f'SET ROLE "{stores.admin}"': "permission denied",
        "CREATE ROLE squatted": "permission denied",
        'CREATE DATABASE "mlflow_squatted_tracking"': "permission denied",
        f'ALTER DATABASE "{owner}" RENAME TO "mlflow_squatted_tracking"': "permission denied",
        f'ALTER DATABASE "{owner}" OWNER TO "{other_owner}"': "must be (able to SET ROLE|member of role)",
        f"COMMENT ON DATABASE \"{other.database}\" IS 'mine'": "must be owner",
        f'DROP DATABASE "{other.database}"': "must be owner",
    }
    for statement, error in attempts.items():
        with pytest.raises(CommandError, match=error):
            login.query(stores, statement)
    with pytest.raises(CommandError, match="permission denied for database"):
        login.query(stores, "SELECT 1", other.database)


async def test_tenant_chooses_neither_names_nor_prefixes_on_a_platform(
    tenancy: Tenancy, alice: Tenant, mine: Server, theirs: Server
) -> None:
    """Not with fields of other unions, which are refused, and not with fields that do not exist, which are dropped."""
    login, prefix = Login.of(theirs), tenancy.prefix(theirs)
    server = alice.try_server(
        "squatter",
        database={"platform": {"databaseName": login.database, "roleName": login.database}},
        artifacts={"platform": {"bucket": tenancy.bucket, "prefix": prefix}},
    )
    assert server is not None
    tenancy.wait_for_stores(server)
    assert await tenancy.policy_resources(server) == resources(tenancy.bucket, tenancy.prefix(server))
    assert Login.of(server).database != login.database
    assert not alice.try_server(
        "both",
        platformRef={"name": tenancy.name},
        artifacts={"platform": {}, "s3": {"bucket": tenancy.bucket}},
    )


async def test_changed_secret_of_a_server_touches_no_other_user(
    tenancy: Tenancy, alice: Tenant, theirs: Server
) -> None:
    """The tenant writes users of others into the generated Secrets of its server: the operator sets no password."""
    stores, other = tenancy.stores, Login.of(theirs)
    # Not the key of the other server: the operator names the user in its message.
    user, bucket = AccessKey(f"{tenancy.name}-user", "secret-of-the-user"), f"{tenancy.name}-user"
    stores.minio.client().create_bucket(Bucket=bucket)
    statement = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"]}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    await MinioAdmin(SignedRequests()).ensure_user(tenancy.minio_admin(), user, user.id, policy)
    server = alice.server("tampered")
    tenancy.wait_for_stores(server)
    login = {"username": other.user, "password": "taken-over"}
    alice.kube.patch("Secret", server.names.database_secret, {"stringData": login})
    for number, key_id in enumerate((user.id, stores.minio.access_key)):
        key = {"accessKeyID": key_id, "secretAccessKey": "taken-over"}
        alice.kube.patch("Secret", server.names.artifacts_secret, {"stringData": key})
        server.patch_spec(workers=2 + number)
        condition = server.wait_for("ArtifactStoreReady", "False", within=timeouts.STATUS_SECONDS)
        assert f'The user "{key_id}"' in condition["message"]
    other.query(stores, "SELECT 1")
    for client in (stores.minio.client(user.id, user.secret), stores.minio.client()):
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_foreign_bucket_stays_complete(
    tenancy: Tenancy, alice: Tenant, mine: Server, theirs: Server, backups: str
) -> None:
    """Forged markers do not help: those that permit a deletion are where no key of a tenant can write."""
    minio, key = tenancy.stores.minio, access_key(mine)
    client, root = minio.client(key.id, key.secret), minio.client()
    forged = f"mlflow-operator.dev: {alice.namespace}/{mine.name}".encode()
    owners = f"_mlflow-operator/owners/{alice.namespace}!{mine.name}/{MARKER_KEY}"
    assert content(root, tenancy.bucket, owners), "the operator's marker is elsewhere"
    own_objects = root.list_objects_v2(Bucket=tenancy.bucket, Prefix=tenancy.prefix(mine))
    assert not own_objects["KeyCount"], "the operator stores objects where the tenant can write"
    for bucket, marker in (
        (backups, MARKER_KEY),
        (tenancy.bucket, MARKER_KEY),
        (tenancy.bucket, f"{tenancy.prefix(theirs)}{MARKER_KEY}"),
        (tenancy.bucket, owners),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket=bucket, Key=marker, Body=forged)
    client.put_object(Bucket=tenancy.bucket, Key=f"{tenancy.prefix(mine)}{MARKER_KEY}", Body=forged)

    admin_ref = {"name": f"{tenancy.name}-minio", "namespace": tenancy.stores.kube.namespace}
    attempts = {
        "foreign-admin": {"bucket": backups, "prefix": "a", "adminSecretRef": admin_ref},
        "foreign-bucket": {"bucket": backups, "credentialsSecretRef": {"name": mine.names.artifacts_secret}},
        "foreign-prefix": {
            "bucket": tenancy.bucket,
            "prefix": tenancy.prefix(theirs).rstrip("/"),
            "credentialsSecretRef": {"name": mine.names.artifacts_secret},
        },
    }
    servers = [mine]
    for name, store in attempts.items():
        server = alice.try_server(
            name,
            deletionPolicy="Delete",
            database=FOREIGN_DATABASE,
            artifacts={"s3": {"endpoint": minio.endpoint, **store}},
        )
        if server:
            condition = server.wait_for("ArtifactStoreReady", "False", within=timeouts.STATUS_SECONDS)
            assert condition["reason"] in {"ProvisioningDenied", "SecretNotFound", "BucketAccessDenied"}
            assert condition["message"]
            servers.append(server)
    delete(alice, *servers)
    assert not root.list_objects_v2(Bucket=tenancy.bucket, Prefix=tenancy.prefix(mine))["KeyCount"]
    assert content(root, backups, "dump.sql") == b"dump"
    assert content(root, tenancy.bucket, f"{tenancy.prefix(theirs)}model.bin") == b"theirs"
    Login.of(theirs).query(tenancy.stores, "SELECT 1")
