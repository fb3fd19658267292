"""A store that is no MinIO: what works there as well, and what is told where it does not."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.s3 import bucket_policy, lifecycle, seaweedfs_admin
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.clients.s3.minio_admin import ensure_user
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.model.server import BucketCreation, BucketSettings, ObjectStore, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.minio import ROOT, Store
from tests.contracts.seaweedfs import OWNER, STRANGER

RULE = lifecycle.rule_id(ServerRef("tracking", "team-a", "uid"))
_numbers = itertools.count(1)


@pytest.fixture
async def bucket(weed: Store, stores: ObjectStores) -> Bucket:
    """One that is there, with a prefix that is the server's."""
    made = weed.bucket(f"models-{next(_numbers)}", "team-a", OWNER)
    assert await stores.ensure_bucket(made, create=True)
    return made


async def test_a_bucket_is_made_with_the_key_given_and_opens(stores: ObjectStores, bucket: Bucket) -> None:
    assert not await stores.ensure_bucket(bucket, create=False)
    await stores.check_access(bucket)


async def test_a_bucket_of_another_account_is_told(stores: ObjectStores, bucket: Bucket) -> None:
    """Whether it may be made or not: its name is taken."""
    for create in (True, False):
        with pytest.raises(ConfigurationError) as told:
            await stores.ensure_bucket(
                replace(bucket, access_key=STRANGER.id, secret_key=STRANGER.secret), create
            )
        assert told.value.reason is Reason.BUCKET_ACCESS_DENIED
        assert "belongs to another account" in told.value.message


async def test_versioning_and_lifecycle_are_set_and_not_written_twice(
    weed: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    wanted = BucketSettings(versioned=True, lifecycle=True, noncurrent_days=30, abort_days=7)
    place = ObjectStore(
        *(None, "us-east-1", bucket.name, bucket.prefix, "path", BucketCreation.NEVER, None, None, None),
        settings=wanted,
    )
    rule = lifecycle.rule(ServerRef("tracking", "team-a", "uid"), place)
    await stores.apply_settings(bucket, wanted, RULE, rule)
    client = weed.client(OWNER)
    assert client.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    found: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert lifecycle.merged(found, RULE, rule) is None


async def test_a_prefix_is_emptied_with_all_versions_and_nothing_beside_it(
    weed: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    client = weed.client(OWNER)
    client.put_object(Bucket=bucket.name, Key="team-a/before", Body=b"x")
    await stores.apply_settings(bucket, BucketSettings(versioned=True), RULE, None)
    for key in ("team-a/a", "team-a/a", "team-a/b", "team-ab/c"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket.name, Key="team-a/b")
    await stores.delete_objects(bucket)
    left: Any = client.list_object_versions(Bucket=bucket.name)
    assert {each["Key"] for each in (*left.get("Versions", ()), *left.get("DeleteMarkers", ()))} == {
        "team-ab/c"
    }


def place(bucket: Bucket) -> ObjectStore:
    """The bucket as a server's own."""
    return ObjectStore(
        bucket.endpoint, "us-east-1", bucket.name, "", "path", BucketCreation.IF_MISSING, None, None, None
    )


def as_user(bucket: Bucket, key: AccessKey) -> Bucket:
    """All of the bucket, by another key."""
    return replace(bucket, access_key=key.id, secret_key=key.secret, prefix="")


async def test_a_servers_own_user_gets_into_its_bucket_and_nowhere_else(
    weed: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """All that MLflow does works, and nothing that makes or takes away buckets, or users."""
    user, key = f"mlflow-operator.team.{bucket.name}", AccessKey(f"KEY{next(_numbers)}", "secret-of-a-server")
    await seaweedfs_admin.ensure_user(weed.admin(OWNER), key, user, bucket_policy.in_seaweedfs(place(bucket)))
    assert await stores.ensure_bucket(as_user(bucket, key), create=False) is False
    await stores.check_access(as_user(bucket, key))
    client = weed.client(key)
    client.put_object(Bucket=bucket.name, Key="a/b", Body=b"x")
    parts = client.create_multipart_upload(Bucket=bucket.name, Key="big")["UploadId"]
    part: Any = {"Bucket": bucket.name, "Key": "big", "UploadId": parts}
    client.upload_part(**part, PartNumber=1, Body=b"y")
    assert len(client.list_parts(**part)["Parts"]) == 1
    client.abort_multipart_upload(**part)
    client.delete_object(Bucket=bucket.name, Key="a/b")
    other = weed.bucket(f"models-{next(_numbers)}", "", OWNER)
    assert await stores.ensure_bucket(other, create=True)
    too_much: list[Callable[[], object]] = [
        lambda: client.list_objects_v2(Bucket=other.name),
        lambda: client.put_object(Bucket=other.name, Key="a", Body=b"x"),
        lambda: client.create_bucket(Bucket=f"models-{next(_numbers)}"),
        lambda: client.delete_bucket(Bucket=bucket.name),
    ]
    for refused in too_much:
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    with pytest.raises(ConfigurationError):
        await seaweedfs_admin.ensure_user(
            weed.admin(key), key, user, bucket_policy.in_seaweedfs(place(other))
        )


async def test_a_key_is_replaced_while_the_other_one_is_in_use(
    weed: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """Both open it meanwhile; each step can be done twice; a secret that was wrong is put right."""
    admin, user = weed.admin(OWNER), f"mlflow-operator.team.{bucket.name}"
    policy = bucket_policy.in_seaweedfs(place(bucket))
    old, new = (AccessKey(f"KEY{next(_numbers)}", f"secret-{next(_numbers)}-of-a-server") for _ in range(2))
    assert not await seaweedfs_admin.has_user(admin, old.id, user)
    await seaweedfs_admin.ensure_user(admin, AccessKey(old.id, "another-secret"), user, policy)
    for key in (old, old, new, new):
        await seaweedfs_admin.ensure_user(admin, key, user, policy)
    for key in (old, new):
        assert await seaweedfs_admin.has_user(admin, key.id, user)
        await stores.ensure_bucket(as_user(bucket, key), create=False)
    for _ in range(2):
        await seaweedfs_admin.delete_user(admin, old.id, user)
    assert not await seaweedfs_admin.has_user(admin, old.id, user)
    with pytest.raises(ConfigurationError):
        await stores.ensure_bucket(as_user(bucket, old), create=False)
    await stores.ensure_bucket(as_user(bucket, new), create=False)


async def test_a_root_key_that_is_refused_is_told(weed: Store, bucket: Bucket) -> None:
    for wrong in (AccessKey(OWNER.id, "another-secret"), AccessKey("NOBODY", "another-secret"), STRANGER):
        with pytest.raises(ConfigurationError) as told:
            await seaweedfs_admin.has_user(weed.admin(wrong), "KEY", "user")
        assert told.value.reason is Reason.PROVISIONING_DENIED
        assert "refuses the root key in" in told.value.message


async def test_what_makes_no_users_is_told(store: Store) -> None:
    """Another program in its place."""
    with pytest.raises(ConfigurationError) as told:
        await seaweedfs_admin.has_user(store.admin(ROOT), "KEY", "user")
    assert told.value.reason is Reason.PROVISIONING_DENIED


async def test_it_has_no_admin_api_of_minio_and_says_so(weed: Store) -> None:
    with pytest.raises(ConfigurationError) as told:
        await ensure_user(
            weed.admin(OWNER), AccessKey("USER", "secret-of-user"), "mlflow-operator.team.a", {}
        )
    assert told.value.reason is Reason.PROVISIONING_DENIED
    assert "credentialsSecretRef instead of adminSecretRef" in told.value.message
