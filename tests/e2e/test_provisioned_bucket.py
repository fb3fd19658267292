"""A MinIO that many servers share: each has a key of its own there, and no way to the others' artifacts."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.s3 import minio_admin
from mlflow_operator.clients.s3.minio_api import AdminRequest, AdminResponse, call
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.model.secrets import decoded
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, small
from tests.e2e.shared_stores import STORE_ADMIN, Platform

BUCKET = "shared"
NOWHERE: Object = {"external": {"host": "nowhere.invalid", "credentialsSecretRef": {"name": "nobody"}}}
"""A database that keeps a server from ever having pods: what is told of its store needs none."""


def admin(platform: Platform) -> Admin:
    """The MinIO's administrator."""
    key = AccessKey(platform.minio.access_key, platform.minio.secret_key)
    return Admin(platform.minio.endpoint, key, None, "the tests")


def on_platform(platform: Platform, kube: Kube, name: str) -> Server:
    """A server on the platform, with its part of the bucket called after its namespace."""
    artifacts = platform.bucket(BUCKET, prefix=kube.namespace)
    database = platform.stores(kube, name)["database"]
    return Server(kube, name).apply(small(database=database, artifacts=artifacts))


async def test_servers_of_one_bucket_cannot_reach_each_others_artifacts(
    ns: Kube, other_ns: Kube, platform: Platform
) -> None:
    """Tried with each one's key; and neither namespace holds the administrator's."""
    servers = [on_platform(platform, kube, "tracking") for kube in (ns, other_ns)]
    works = {server: Scientist(server.ready().url).work("shared") for server in servers}
    for server, other in (servers, servers[::-1]):
        _keeps_to_its_own(platform, server, other)
        assert server.status["artifacts"] == {"type": "S3", "uri": f"s3://{BUCKET}/{server.kube.namespace}"}
        held = {value for each in server.kube.list("Secret") for value in decoded(each).values()}
        assert not held & {platform.minio.access_key, platform.minio.secret_key}

    server, work = servers[0], works[servers[0]]
    await _nothing_is_written_at_rest(platform, server)
    _a_key_given_instead_is_no_other_place(server)
    Scientist(server.url).finds(work)


def _keeps_to_its_own(platform: Platform, server: Server, other: Server) -> None:
    key = decoded(server.kube.need("Secret", server.names.artifacts_secret))
    mine, theirs = f"{server.kube.namespace}/", f"{other.kube.namespace}/"
    client = platform.minio.client(key["accessKeyID"], key["secretAccessKey"])
    assert client.list_objects_v2(Bucket=BUCKET, Prefix=mine)["KeyCount"]
    found = platform.minio.client().list_objects_v2(Bucket=BUCKET, Prefix=theirs)["Contents"]
    place: Any = {"Bucket": BUCKET, "Key": found[0]["Key"]}
    attempts: dict[str, Callable[[], Any]] = {
        "list": lambda: client.list_objects_v2(Bucket=BUCKET, Prefix=theirs),
        "list all": lambda: client.list_objects_v2(Bucket=BUCKET),
        "read": lambda: client.get_object(**place),
        "write": lambda: client.put_object(**place, Body=b"mine"),
        "delete": lambda: client.delete_object(**place),
    }
    for what, attempt in attempts.items():
        with pytest.raises(ClientError) as refused:
            attempt()
        status = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == 403, f"{what}: {refused.value}"


async def _nothing_is_written_at_rest(platform: Platform, server: Server) -> None:
    name = f"mlflow-operator.{server.kube.namespace}.{server.name}"
    asked = AdminRequest("GET", "info-canned-policy", {"name": name, "v": "2"})
    before = (await call(admin(platform), asked)).content
    server.look()
    server.until("Ready")
    assert (await call(admin(platform), asked)).content["UpdateDate"] == before["UpdateDate"]


def _a_key_given_instead_is_no_other_place(server: Server) -> None:
    """The API server lets it pass without storageChangePolicy, and the server goes on where it was."""
    old = server.pod()
    key = decoded(server.kube.need("Secret", server.names.artifacts_secret))
    server.kube.apply(secret("given", **{name: key[name] for name in ("accessKeyID", "secretAccessKey")}))
    server.change(artifacts={"s3": {"adminSecretRef": None, "credentialsSecretRef": {"name": "given"}}})
    server.replaced("server", old)
    server.ready()


@pytest.mark.long_running(
    reason="a minute of waiting; tests/contracts/test_s3.py and test_provisioned_store.py name the same faults"
)
async def test_each_fault_of_a_shared_store_is_reported_with_a_remedy(ns: Kube, platform: Platform) -> None:
    """One server, whose owner tries one thing after the other; nothing but its spec changes."""
    bucket = f"faults-{ns.namespace}"
    ns.apply(secret("nobody", username="nobody", password="nobody"))
    platform.kube.apply(
        platform.store_admin("closed", allow="elsewhere-*"),
        platform.store_admin("wrong", secretAccessKey="wrong-one"),
    )
    server = Server(ns).apply(
        small(
            database=NOWHERE,
            artifacts=platform.bucket(bucket, prefix=ns.namespace),
            storageChangePolicy="Allow",
        )
    )
    faults = Faults(server)
    faults.mended("ArtifactStoreReady")
    await _administrators(faults, platform, bucket)
    await _places(faults, platform)
    await _rights(faults, platform)
    _settings(faults, platform, bucket)


async def _administrators(faults: Faults, platform: Platform, bucket: str) -> None:
    """A server that has a key of its own goes on with it, so one that has none yet is asked."""
    server, where = faults.server, {"namespace": platform.kube.namespace}
    new = Faults(Server(server.kube, "new"))

    def try_with(name: str) -> None:
        artifacts = platform.bucket(
            bucket, prefix=f"{server.kube.namespace}-new", adminSecretRef={"name": name, **where}
        )
        new.server.apply(small(database=NOWHERE, artifacts=artifacts))

    try_with("wrong")
    new.told(
        "ArtifactStoreReady",
        "BucketAccessDenied",
        "refuses the secret access key",
        "spec.artifacts.s3.adminSecretRef",
    )
    try_with("closed")
    closed = new.told("ArtifactStoreReady", "ProvisioningDenied", "that servers in namespace")
    try_with("absent")
    absent = new.told("ArtifactStoreReady", "ProvisioningDenied", '"absent"')
    assert closed.replace("closed", "absent") == absent, "a tenant can tell a Secret it may not use from none"
    try_with(STORE_ADMIN)
    new.mended("ArtifactStoreReady")

    server.change(artifacts={"s3": {"adminSecretRef": {"name": "wrong"}}})
    found = server.until("ArtifactStoreReady")
    assert "refuses the administrator's secret key" in found["message"]
    server.change(artifacts={"s3": {"adminSecretRef": {"name": STORE_ADMIN}}})


async def _places(faults: Faults, platform: Platform) -> None:
    server = faults.server
    own = platform.minio.endpoint
    server.change(artifacts={"s3": {"prefix": f"{server.kube.namespace}-new/mlflow"}})
    faults.told(
        "ArtifactStoreReady", "NameConflict", "overlaps", f"mlflow-operator.{server.kube.namespace}.new"
    )
    server.change(
        artifacts={"s3": {"prefix": server.kube.namespace, "endpoint": own.replace("http", "https")}}
    )
    faults.told("ArtifactStoreReady", "ArtifactStoreUnreachable", "Write http:// instead of https://")
    server.change(artifacts={"s3": {"endpoint": own}})
    faults.mended("ArtifactStoreReady")


async def _rights(faults: Faults, platform: Platform) -> None:
    """A key that somebody has made by hand, and forgot something."""
    server = faults.server
    reader = AccessKey(f"reader-{server.kube.namespace}", "secret-of-reader")
    assert (await _allow(platform, reader, "s3:GetObject")).good
    server.kube.apply(secret("reader", accessKeyID=reader.id, secretAccessKey=reader.secret))
    server.change(artifacts={"s3": {"adminSecretRef": None, "credentialsSecretRef": {"name": "reader"}}})
    faults.told("ArtifactStoreReady", "BucketAccessDenied", "s3:ListBucket", "another account")
    await _allow(platform, reader, "s3:GetObject", "s3:ListBucket")
    faults.told("ArtifactStoreReady", "BucketAccessDenied", "Allow it s3:PutObject")
    await _allow(platform, reader, "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload")
    faults.mended("ArtifactStoreReady")
    server.change(artifacts={"s3": {"versioning": "Enabled"}})
    faults.told(
        "ArtifactStoreReady",
        "BucketSettingsRefused",
        "s3:PutBucketVersioning",
        "spec.artifacts.s3.versioning",
    )
    ours = {"name": STORE_ADMIN, "namespace": platform.kube.namespace}
    server.change(artifacts={"s3": {"adminSecretRef": ours, "credentialsSecretRef": None}})
    faults.mended("ArtifactStoreReady")


async def _allow(platform: Platform, key: AccessKey, *actions: str) -> AdminResponse:
    statement = {"Effect": "Allow", "Action": [*actions], "Resource": ["arn:aws:s3:::*"]}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    made = AdminRequest("PUT", "add-canned-policy", {"name": key.id}, json.dumps(policy).encode())
    answer = await call(admin(platform), made)
    await minio_admin.ensure_user(admin(platform), key, key.id, policy)
    return answer


def _settings(faults: Faults, platform: Platform, bucket: str) -> None:
    server, client = faults.server, platform.minio.client()
    server.change(artifacts={"s3": {"encryption": {"type": "SSEKMS", "kmsKeyID": "mlflow"}}})
    faults.told("ArtifactStoreReady", "BucketSettingsRefused", "key management", "kmsKeyID")
    server.change(
        artifacts={"s3": {"encryption": None, "lifecycle": {"noncurrentVersionExpirationDays": 30}}}
    )
    faults.mended("ArtifactStoreReady")
    server.look()
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["Filter"] == {"Prefix": f"{server.kube.namespace}/"}
