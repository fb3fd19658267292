"""A store that is no MinIO: what works there as well, and what is told where it does not."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from mlflow_operator.core import bucket_rules
from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.server import BucketCreation, BucketSettings, ObjectStore, Owner
from mlflow_operator.providers.minio_admin import admit
from mlflow_operator.providers.minio_api import AccessKey
from mlflow_operator.providers.s3 import Bucket, ObjectStores
from tests.providers.minio import Store
from tests.providers.seaweedfs import OWNER, STRANGER

RULE = bucket_rules.rule_id(Owner("tracking", "team-a", "uid"))
_numbers = itertools.count(1)


@pytest.fixture
async def bucket(weed: Store, stores: ObjectStores) -> Bucket:
    """One that is there, with a prefix that is the server's."""
    made = weed.bucket(f"models-{next(_numbers)}", "team-a", OWNER)
    assert await stores.ensure(made, create=True)
    return made


async def test_a_bucket_is_made_with_the_key_given_and_opens(stores: ObjectStores, bucket: Bucket) -> None:
    assert not await stores.ensure(bucket, create=False)
    await stores.prove(bucket)


async def test_a_bucket_of_another_account_is_told(stores: ObjectStores, bucket: Bucket) -> None:
    """Whether it may be made or not: its name is taken."""
    for create in (True, False):
        with pytest.raises(UserMistake) as told:
            await stores.ensure(replace(bucket, access_key=STRANGER.id, secret_key=STRANGER.secret), create)
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
    rule = bucket_rules.rule(Owner("tracking", "team-a", "uid"), place)
    await stores.manage(bucket, wanted, RULE, rule)
    client = weed.client(OWNER)
    assert client.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    found: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert bucket_rules.merged(found, RULE, rule) is None


async def test_a_prefix_is_emptied_with_all_versions_and_nothing_beside_it(
    weed: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    client = weed.client(OWNER)
    client.put_object(Bucket=bucket.name, Key="team-a/before", Body=b"x")
    await stores.manage(bucket, BucketSettings(versioned=True), RULE, None)
    for key in ("team-a/a", "team-a/a", "team-a/b", "team-ab/c"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket.name, Key="team-a/b")
    await stores.empty(bucket)
    left: Any = client.list_object_versions(Bucket=bucket.name)
    assert {each["Key"] for each in (*left.get("Versions", ()), *left.get("DeleteMarkers", ()))} == {
        "team-ab/c"
    }


async def test_it_makes_no_users_and_says_so(weed: Store) -> None:
    with pytest.raises(UserMistake) as told:
        await admit(weed.admin(OWNER), AccessKey("USER", "secret-of-user"), "mlflow-operator.team.a", {})
    assert told.value.reason is Reason.PROVISIONING_DENIED
    assert "credentialsSecretRef instead of adminSecretRef" in told.value.message
