"""A store other than MinIO: the supported features, and the errors for the others."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.clients.s3 import bucket_policy, lifecycle
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.seaweedfs_admin import SeaweedFSAdmin
from mlflow_operator.clients.s3.signed_request import AccessKey, SignedRequests
from mlflow_operator.model.server import BucketSettings, ObjectStore, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.minio import ROOT_KEY, Store
from tests.contracts.seaweedfs import OTHER_KEY, OWNER_KEY

RULE_ID = lifecycle.rule_id(ServerRef("tracking", "team-a", "uid"))
SEAWEEDFS_ADMIN = SeaweedFSAdmin(SignedRequests())
_numbers = itertools.count(1)


@pytest.fixture
async def bucket(seaweedfs_store: Store, stores: ObjectStores) -> Bucket:
    """An existing bucket, with the server's prefix."""
    bucket = seaweedfs_store.bucket(f"models-{next(_numbers)}", "team-a", OWNER_KEY)
    assert await stores.ensure_bucket(bucket, create=True)
    return bucket


async def test_bucket_is_created_and_accessible(stores: ObjectStores, bucket: Bucket) -> None:
    assert not await stores.ensure_bucket(bucket, create=False)
    await stores.check_access(bucket)


async def test_bucket_of_another_account_is_reported(stores: ObjectStores, bucket: Bucket) -> None:
    """Also if the operator may create the bucket: its name is taken."""
    for create in (True, False):
        with pytest.raises(ConfigurationError) as error:
            await stores.ensure_bucket(
                replace(bucket, access_key=OTHER_KEY.id, secret_key=OTHER_KEY.secret), create
            )
        assert error.value.reason is Reason.BUCKET_ACCESS_DENIED
        assert "belongs to another account" in error.value.message


async def test_versioning_and_lifecycle_are_set_once(
    seaweedfs_store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    settings = BucketSettings(versioned=True, lifecycle=True, noncurrent_days=30, abort_multipart_days=7)
    rule = lifecycle.rule(RULE_ID, bucket.prefix, settings)
    await stores.apply_settings(bucket, settings, RULE_ID, rule)
    client = seaweedfs_store.client(OWNER_KEY)
    assert client.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    observed: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert lifecycle.merge(observed, RULE_ID, rule) is None


async def test_deletion_covers_all_versions_of_prefix_only(
    seaweedfs_store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    client = seaweedfs_store.client(OWNER_KEY)
    client.put_object(Bucket=bucket.name, Key="team-a/before", Body=b"x")
    await stores.apply_settings(bucket, BucketSettings(versioned=True), RULE_ID, None)
    for key in ("team-a/a", "team-a/a", "team-a/b", "team-ab/c"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket.name, Key="team-a/b")
    await stores.delete_objects(bucket)
    remaining: Any = client.list_object_versions(Bucket=bucket.name)
    assert {
        entry["Key"] for entry in (*remaining.get("Versions", ()), *remaining.get("DeleteMarkers", ()))
    } == {"team-ab/c"}


def object_store(bucket: Bucket) -> ObjectStore:
    """The whole bucket as the store of a server."""
    return ObjectStore(
        bucket.endpoint, "us-east-1", bucket.name, "", "path", BucketCreation.IF_MISSING, None, None, None
    )


def with_key(bucket: Bucket, key: AccessKey) -> Bucket:
    """The whole bucket with another key."""
    return replace(bucket, access_key=key.id, secret_key=key.secret, prefix="")


async def test_user_of_server_can_access_only_its_bucket(
    seaweedfs_store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """The key allows everything that MLflow does, but not to create or delete buckets or users."""
    user, key = f"mlflow-operator.team.{bucket.name}", AccessKey(f"KEY{next(_numbers)}", "secret-of-a-server")
    await SEAWEEDFS_ADMIN.ensure_key(
        seaweedfs_store.admin(OWNER_KEY), key, user, bucket_policy.seaweedfs_policy(object_store(bucket))
    )
    assert await stores.ensure_bucket(with_key(bucket, key), create=False) is False
    await stores.check_access(with_key(bucket, key))
    client = seaweedfs_store.client(key)
    client.put_object(Bucket=bucket.name, Key="a/b", Body=b"x")
    upload = client.create_multipart_upload(Bucket=bucket.name, Key="big")["UploadId"]
    large: Any = {"Bucket": bucket.name, "Key": "big", "UploadId": upload}
    client.upload_part(**large, PartNumber=1, Body=b"y")
    assert len(client.list_parts(**large)["Parts"]) == 1
    client.abort_multipart_upload(**large)
    client.delete_object(Bucket=bucket.name, Key="a/b")
    other = seaweedfs_store.bucket(f"models-{next(_numbers)}", "", OWNER_KEY)
    assert await stores.ensure_bucket(other, create=True)
    forbidden_requests: list[Callable[[], object]] = [
        lambda: client.list_objects_v2(Bucket=other.name),
        lambda: client.put_object(Bucket=other.name, Key="a", Body=b"x"),
        lambda: client.create_bucket(Bucket=f"models-{next(_numbers)}"),
        lambda: client.delete_bucket(Bucket=bucket.name),
    ]
    for request in forbidden_requests:
        with pytest.raises(ClientError, match="AccessDenied"):
            request()
    with pytest.raises(ConfigurationError):
        await SEAWEEDFS_ADMIN.ensure_key(
            seaweedfs_store.admin(key), key, user, bucket_policy.seaweedfs_policy(object_store(other))
        )


async def test_key_rotation(seaweedfs_store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """Both keys work meanwhile, each step is idempotent, and a wrong secret is corrected."""
    admin, user = seaweedfs_store.admin(OWNER_KEY), f"mlflow-operator.team.{bucket.name}"
    policy = bucket_policy.seaweedfs_policy(object_store(bucket))
    old, new = (AccessKey(f"KEY{next(_numbers)}", f"secret-{next(_numbers)}-of-a-server") for _ in range(2))
    assert not await SEAWEEDFS_ADMIN.has_key(admin, old.id, user)
    await SEAWEEDFS_ADMIN.ensure_key(admin, AccessKey(old.id, "another-secret"), user, policy)
    for key in (old, old, new, new):
        await SEAWEEDFS_ADMIN.ensure_key(admin, key, user, policy)
    for key in (old, new):
        assert await SEAWEEDFS_ADMIN.has_key(admin, key.id, user)
        await stores.ensure_bucket(with_key(bucket, key), create=False)
    for _ in range(2):
        await SEAWEEDFS_ADMIN.delete_key(admin, old.id, user)
    assert not await SEAWEEDFS_ADMIN.has_key(admin, old.id, user)
    with pytest.raises(ConfigurationError):
        await stores.ensure_bucket(with_key(bucket, old), create=False)
    await stores.ensure_bucket(with_key(bucket, new), create=False)


async def test_rejected_root_key_is_reported(seaweedfs_store: Store, bucket: Bucket) -> None:
    for wrong_key in (
        AccessKey(OWNER_KEY.id, "another-secret"),
        AccessKey("UNKNOWN", "another-secret"),
        OTHER_KEY,
    ):
        with pytest.raises(ConfigurationError) as error:
            await SEAWEEDFS_ADMIN.has_key(seaweedfs_store.admin(wrong_key), "KEY", "user")
        assert error.value.reason is Reason.PROVISIONING_DENIED
        assert "rejects the root key in" in error.value.message


async def test_store_without_iam_api_is_reported(store: Store) -> None:
    """MinIO in place of SeaweedFS."""
    with pytest.raises(ConfigurationError) as error:
        await SEAWEEDFS_ADMIN.has_key(store.admin(ROOT_KEY), "KEY", "user")
    assert error.value.reason is Reason.PROVISIONING_DENIED


async def test_missing_admin_api_of_minio_is_reported(seaweedfs_store: Store) -> None:
    with pytest.raises(ConfigurationError) as error:
        await MinioAdmin(SignedRequests()).ensure_user(
            seaweedfs_store.admin(OWNER_KEY),
            AccessKey("USER", "secret-of-user"),
            "mlflow-operator.team.a",
            {},
        )
    assert error.value.reason is Reason.PROVISIONING_DENIED
    assert "credentialsSecretRef instead of adminSecretRef" in error.value.message
