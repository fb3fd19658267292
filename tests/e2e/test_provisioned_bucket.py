"""A MinIO that many servers share: each server has its own key, without access to other servers' artifacts."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.minio_api import AdminRequest, AdminResponse, MinioAPI
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.model.secrets import text_values
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, small_spec
from tests.e2e.shared_stores import STORE_ADMIN_SECRET, Platform, policy_name

MINIO_ADMIN, MINIO_API = MinioAdmin(SignedRequests()), MinioAPI(SignedRequests())
BUCKET = "shared"
UNREACHABLE_DATABASE: Object = {
    "external": {"host": "nowhere.invalid", "credentialsSecretRef": {"name": "unused"}}
}
"""An unreachable database, so that the server never has pods: the tests only check conditions of its store."""


def admin(platform: Platform) -> Admin:
    """Return MinIO's administrator."""
    key = AccessKey(platform.minio.access_key, platform.minio.secret_key)
    return Admin(platform.minio.endpoint, key, None, "the tests")


async def test_servers_in_one_bucket_cannot_access_each_others_artifacts(
    ns: Kube, other_ns: Kube, platform: Platform
) -> None:
    """Tried with the key of each server. The namespace of the one on a platform has no administrator's key.

    The other one has an administrator's Secret of its own.
    """
    artifacts = platform.bucket_spec(other_ns, BUCKET, prefix=other_ns.namespace)
    with platform.resource(ns.namespace, BUCKET, ns) as use_platform:
        tenant, other = Server(ns), Server(other_ns)
        tenant.apply(small_spec(**use_platform))
        other.apply(
            small_spec(database=platform.stores_spec(other_ns, other.name)["database"], artifacts=artifacts)
        )
        servers = [tenant, other]
        data_by_server = {server: Workload(server.wait_ready().url).log_data("shared") for server in servers}
        for first, second in (servers, servers[::-1]):
            _check_isolation(platform, first, second)
            await _check_reconcile_writes_nothing(platform, first)
        assert tenant.status["artifacts"] == {
            "type": "Platform",
            "uri": f"s3://{BUCKET}/{ns.namespace}/{tenant.name}",
            "endpoint": platform.minio.endpoint,
        }
        assert other.status["artifacts"] == {
            "type": "S3",
            "uri": f"s3://{BUCKET}/{other_ns.namespace}",
            "endpoint": platform.minio.endpoint,
        }
        secret_values = {value for obj in ns.list("Secret") for value in text_values(obj).values()}
        assert not secret_values & {platform.minio.access_key, platform.minio.secret_key}
        _check_switch_to_user_key(other)
        Workload(other.url).check_data(data_by_server[other])


def _check_isolation(platform: Platform, server: Server, other: Server) -> None:
    key = text_values(server.kube.require("Secret", server.names.artifacts_secret))
    mine, theirs = (_prefix(each) for each in (server, other))
    client = platform.minio.client(key["accessKeyID"], key["secretAccessKey"])
    assert client.list_objects_v2(Bucket=BUCKET, Prefix=mine)["KeyCount"]
    objects = platform.minio.client().list_objects_v2(Bucket=BUCKET, Prefix=theirs)["Contents"]
    location: Any = {"Bucket": BUCKET, "Key": objects[0]["Key"]}
    attempts: dict[str, Callable[[], Any]] = {
        "list": lambda: client.list_objects_v2(Bucket=BUCKET, Prefix=theirs),
        "list all": lambda: client.list_objects_v2(Bucket=BUCKET),
        "read": lambda: client.get_object(**location),
        "write": lambda: client.put_object(**location, Body=b"mine"),
        "delete": lambda: client.delete_object(**location),
    }
    for action, attempt in attempts.items():
        with pytest.raises(ClientError) as refused:
            attempt()
        status = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == 403, f"{action}: {refused.value}"


def _prefix(server: Server) -> str:
    uri: str = server.status["artifacts"]["uri"]
    return uri.removeprefix(f"s3://{BUCKET}/") + "/"


async def _check_reconcile_writes_nothing(platform: Platform, server: Server) -> None:
    request = AdminRequest("GET", "info-canned-policy", {"name": policy_name(server), "v": "2"})
    before = (await MINIO_API.call(admin(platform), request)).content
    server.trigger_reconcile()
    server.wait_for("Ready")
    assert (await MINIO_API.call(admin(platform), request)).content["UpdateDate"] == before["UpdateDate"]


def _check_switch_to_user_key(server: Server) -> None:
    """The API server accepts the change without storageChangePolicy, because the location stays the same."""
    old = server.pod()
    key = text_values(server.kube.require("Secret", server.names.artifacts_secret))
    server.kube.apply(secret("user-key", **{name: key[name] for name in ("accessKeyID", "secretAccessKey")}))
    server.patch_spec(
        artifacts={"s3": {"adminSecretRef": None, "credentialsSecretRef": {"name": "user-key"}}}
    )
    server.wait_replaced("server", old)
    server.wait_ready()


@pytest.mark.long_running(
    reason="waits for a minute; tests/contracts/test_s3.py and tests/unit/components/artifacts test the same faults"
)
async def test_shared_store_faults_are_reported_with_a_remedy(ns: Kube, platform: Platform) -> None:
    """One server, whose spec is changed to one faulty setting after the other."""
    bucket = f"faults-{ns.namespace}"
    ns.apply(secret("unused", username="unused", password="unused"))
    ns.apply(platform.store_admin_secret("wrong", secretAccessKey="wrong-one"))
    server = Server(ns).apply(
        small_spec(
            database=UNREACHABLE_DATABASE,
            artifacts=platform.bucket_spec(ns, bucket, prefix=ns.namespace),
            storageChangePolicy="Allow",
        )
    )
    faults = FaultExpectations(server)
    faults.expect_recovery("ArtifactStoreReady")
    await _check_administrator_secrets(faults, platform, bucket)
    await _check_locations(faults, platform)
    await _check_permissions(faults, platform)
    _check_bucket_settings(faults, platform, bucket)


async def _check_administrator_secrets(faults: FaultExpectations, platform: Platform, bucket: str) -> None:
    """Uses a new server without a key, because a server that has its own key keeps using it."""
    server = faults.server
    new = FaultExpectations(Server(server.kube, "new"))

    def try_with(name: str) -> None:
        artifacts = platform.bucket_spec(
            server.kube, bucket, prefix=f"{server.kube.namespace}-new", adminSecretRef={"name": name}
        )
        new.server.apply(small_spec(database=UNREACHABLE_DATABASE, artifacts=artifacts))

    try_with("wrong")
    new.expect(
        "ArtifactStoreReady",
        "BucketAccessDenied",
        "rejects the secret access key",
        "spec.artifacts.s3.adminSecretRef",
    )
    try_with("absent")
    new.expect("ArtifactStoreReady", "SecretNotFound", '"absent"', "MLflowPlatform")
    try_with(STORE_ADMIN_SECRET)
    new.expect_recovery("ArtifactStoreReady")

    server.patch_spec(artifacts={"s3": {"adminSecretRef": {"name": "wrong"}}})
    condition = server.wait_for("ArtifactStoreReady")
    assert "rejects the administrator's secret key" in condition["message"]
    server.patch_spec(artifacts={"s3": {"adminSecretRef": {"name": STORE_ADMIN_SECRET}}})


async def _check_locations(faults: FaultExpectations, platform: Platform) -> None:
    server = faults.server
    own = platform.minio.endpoint
    server.patch_spec(artifacts={"s3": {"prefix": f"{server.kube.namespace}-new/mlflow"}})
    faults.expect(
        "ArtifactStoreReady", "NameConflict", "overlap with", f"mlflow-operator.{server.kube.namespace}.new"
    )
    server.patch_spec(
        artifacts={"s3": {"prefix": server.kube.namespace, "endpoint": own.replace("http", "https")}}
    )
    faults.expect("ArtifactStoreReady", "ArtifactStoreUnreachable", "Use http:// instead of https://")
    server.patch_spec(artifacts={"s3": {"endpoint": own}})
    faults.expect_recovery("ArtifactStoreReady")


async def _check_permissions(faults: FaultExpectations, platform: Platform) -> None:
    """A key that a user created with missing permissions."""
    server = faults.server
    reader = AccessKey(f"reader-{server.kube.namespace}", "secret-of-reader")
    assert (await _allow_actions(platform, reader, "s3:GetObject")).ok
    server.kube.apply(secret("reader", accessKeyID=reader.id, secretAccessKey=reader.secret))
    server.patch_spec(artifacts={"s3": {"adminSecretRef": None, "credentialsSecretRef": {"name": "reader"}}})
    faults.expect("ArtifactStoreReady", "BucketAccessDenied", "s3:ListBucket", "another account")
    await _allow_actions(platform, reader, "s3:GetObject", "s3:ListBucket")
    faults.expect("ArtifactStoreReady", "BucketAccessDenied", "Grant it s3:PutObject")
    await _allow_actions(
        platform, reader, "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"
    )
    faults.expect_recovery("ArtifactStoreReady")
    server.patch_spec(artifacts={"s3": {"versioning": "Enabled"}})
    faults.expect(
        "ArtifactStoreReady",
        "BucketSettingsRefused",
        "s3:PutBucketVersioning",
        "spec.artifacts.s3.versioning",
    )
    admin_ref = {"name": STORE_ADMIN_SECRET}
    server.patch_spec(artifacts={"s3": {"adminSecretRef": admin_ref, "credentialsSecretRef": None}})
    faults.expect_recovery("ArtifactStoreReady")


async def _allow_actions(platform: Platform, key: AccessKey, *actions: str) -> AdminResponse:
    statement = {"Effect": "Allow", "Action": [*actions], "Resource": ["arn:aws:s3:::*"]}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    request = AdminRequest("PUT", "add-canned-policy", {"name": key.id}, json.dumps(policy).encode())
    response = await MINIO_API.call(admin(platform), request)
    await MINIO_ADMIN.ensure_user(admin(platform), key, key.id, policy)
    return response


def _check_bucket_settings(faults: FaultExpectations, platform: Platform, bucket: str) -> None:
    server, client = faults.server, platform.minio.client()
    server.patch_spec(artifacts={"s3": {"encryption": {"type": "SSEKMS", "kmsKeyID": "mlflow"}}})
    faults.expect("ArtifactStoreReady", "BucketSettingsRefused", "key management", "kmsKeyID")
    server.patch_spec(
        artifacts={"s3": {"encryption": None, "lifecycle": {"noncurrentVersionExpirationDays": 30}}}
    )
    faults.expect_recovery("ArtifactStoreReady")
    server.trigger_reconcile()
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["Filter"] == {"Prefix": f"{server.kube.namespace}/"}
