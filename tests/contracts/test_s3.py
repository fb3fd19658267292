"""Buckets on a real MinIO: made, tried, set up, emptied; and each fault with its sentence."""

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.clients.s3 import bucket_contents, lifecycle
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.clients.s3.minio_admin import ensure_user
from mlflow_operator.clients.s3.minio_api import AdminRequest, call
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.model.server import BucketCreation, BucketSettings, ObjectStore, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.contracts.minio import FIELD, KMS_KEY, Store
from tests.e2e.certificates import Authority, authority

OWNER = ServerRef("tracking", "team-a", "uid")
RULE = lifecycle.rule_id(OWNER)
_numbers = itertools.count(1)


@pytest.fixture
async def bucket(store: Store, stores: ObjectStores) -> Bucket:
    """One that is there, with a prefix that is the server's."""
    made = store.bucket(f"models-{next(_numbers)}", "team-a/mlflow")
    assert await stores.ensure_bucket(made, create=True)
    return made


async def limited(store: Store, bucket: Bucket, *actions: str) -> Bucket:
    """The same bucket by a key that may do no more than this with it."""
    number = next(_numbers)
    statement = {"Effect": "Allow", "Action": [*actions], "Resource": ["arn:aws:s3:::*"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    name, key = f"limited-{number}", AccessKey(f"LIMITED{number}", "secret-of-limited")
    assert (await call(store.admin(), AdminRequest("PUT", "add-canned-policy", {"name": name}, policy))).good
    await ensure_user(store.admin(), key, name, {"Statement": [statement]})
    return replace(bucket, access_key=key.id, secret_key=key.secret)


def everything(store: Store, bucket: Bucket) -> list[str]:
    """Keys of all versions and delete markers in the bucket."""
    found: Any = store.client().list_object_versions(Bucket=bucket.name)
    return sorted(each["Key"] for each in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())))


async def test_a_bucket_is_made_once(store: Store, stores: ObjectStores) -> None:
    made = store.bucket(f"models-{next(_numbers)}")
    assert await stores.ensure_bucket(made, create=True)
    assert not await stores.ensure_bucket(made, create=True)
    assert not await stores.ensure_bucket(made, create=False)


async def test_two_servers_that_come_at_once_find_one_bucket(store: Store, stores: ObjectStores) -> None:
    """The second one is told to wait at worst, and finds it when it looks again."""
    both = [store.bucket(name, prefix) for name in [f"models-{next(_numbers)}"] for prefix in ("a", "b")]
    answers = await asyncio.gather(
        *(stores.ensure_bucket(each, create=True) for each in both), return_exceptions=True
    )
    refusals = [each for each in answers if isinstance(each, ReconcileError)]
    assert [each.reason for each in refusals] in ([], [Reason.PROGRESSING])
    assert not [each for each in answers if not isinstance(each, bool | ReconcileError)]
    for each in both:
        assert not await stores.ensure_bucket(each, create=True)


async def test_to_try_a_key_leaves_nothing_behind(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """Neither an object nor a version of one, and no upload that was begun."""
    await stores.apply_settings(bucket, BucketSettings(versioned=True), RULE, None)
    await stores.check_access(bucket)
    assert everything(store, bucket) == []
    uploads = store.client().list_multipart_uploads(
        Bucket=bucket.name, Prefix="team-a/mlflow/.mlflow-operator-probe"
    )
    assert "Uploads" not in uploads


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        (("s3:ListBucket", "s3:GetObject"), "s3:PutObject"),
        (("s3:ListBucket", "s3:GetObject", "s3:PutObject"), "s3:AbortMultipartUpload"),
        (("s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"), "s3:GetObject"),
    ],
)
async def test_a_key_that_lacks_a_right_is_told_which(
    store: Store, stores: ObjectStores, bucket: Bucket, allowed: tuple[str, ...], missing: str
) -> None:
    key = await limited(store, bucket, *allowed)
    assert not await stores.ensure_bucket(key, create=True)
    with pytest.raises(ConfigurationError) as told:
        await stores.check_access(key)
    assert told.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert f"Allow it {missing}" in told.value.message
    assert FIELD in told.value.message


async def test_a_key_for_the_prefix_alone_will_do(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """Such as platform teams hand out: to look at the bucket as a whole it needs no right."""
    rights = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    key = await limited(store, bucket, "s3:ListBucket", *rights)
    narrow = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket.name}"],
                "Condition": {"StringLike": {"s3:prefix": ["team-a/mlflow/*"]}},
            },
            {
                "Effect": "Allow",
                "Action": [*rights],
                "Resource": [f"arn:aws:s3:::{bucket.name}/team-a/mlflow/*"],
            },
        ],
    }
    name = f"limited-{key.access_key.removeprefix('LIMITED')}"
    await ensure_user(store.admin(), AccessKey(key.access_key, key.secret_key), name, narrow)
    assert not await stores.ensure_bucket(key, create=False)
    await stores.check_access(key)


async def test_a_bucket_that_the_key_may_not_see_is_told(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """As is one of another account: MinIO has none, AWS answers the same."""
    key = await limited(store, bucket, "s3:GetObject")
    with pytest.raises(ConfigurationError) as told:
        await stores.ensure_bucket(key, create=True)
    assert told.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert "belongs to another account" in told.value.message


async def test_a_bucket_that_the_key_may_not_make_is_told(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    key = await limited(store, replace(bucket, name=f"{bucket.name}-other"), "s3:ListBucket")
    with pytest.raises(ConfigurationError) as told:
        await stores.ensure_bucket(key, create=True)
    assert "may not make it" in told.value.message
    with pytest.raises(ConfigurationError) as told:
        await stores.ensure_bucket(key, create=False)
    assert told.value.reason is Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"access_key": "nobody"}, "does not know the access key"),
        ({"secret_key": "wrong-secret"}, "refuses the secret access key"),
    ],
)
async def test_a_wrong_key_is_told(
    stores: ObjectStores, bucket: Bucket, wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigurationError) as told:
        await stores.ensure_bucket(replace(bucket, **wrong), create=True)
    assert told.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert words in told.value.message
    assert "wrong-secret" not in told.value.message


@pytest.mark.parametrize("by", ["bucket", "administrator"])
async def test_a_wrong_scheme_and_a_wrong_certificate_are_told(  # noqa: PLR0917
    store: Store, secure_store: Store, company: Authority, stores: ObjectStores, tmp_path: Path, by: str
) -> None:
    """Each with what to write instead; and nothing of it is put down to the key."""
    ca, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    ca.write_text(company.pem)
    other.write_text(authority("Somebody Else").pem)
    plain, secure = store.endpoint, secure_store.endpoint
    for endpoint, ca_path, words in (
        (secure.replace("https", "http"), None, "Write https:// instead of http://"),
        (plain.replace("http", "https"), None, "Write http:// instead of https://"),
        (secure, str(other), "spec.artifacts.s3.tls.caSecretRef"),
        (secure.replace("localhost", "127.0.0.1"), str(ca), "made out for another host"),
    ):
        with pytest.raises(ConfigurationError) as told:
            await _ask(stores, replace(store.bucket("models"), endpoint=endpoint, ca_path=ca_path), by)
        assert told.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE, endpoint
        assert words in told.value.message
    await _ask(stores, replace(store.bucket("models"), endpoint=secure, ca_path=str(ca)), by)


async def _ask(stores: ObjectStores, bucket: Bucket, by: str) -> None:
    if by == "bucket":
        await stores.ensure_bucket(bucket, create=True)
        return
    admin = replace(Store(bucket.endpoint or "", "").admin(), ca_path=bucket.ca_path)
    await ensure_user(admin, AccessKey("ANYBODY", "secret-of-anybody"), "mlflow-operator.team.any", _POLICY)


_POLICY: Any = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::any/*"]}],
}


async def test_a_name_that_does_not_resolve_is_told(stores: ObjectStores, bucket: Bucket) -> None:
    with pytest.raises(ReconcileError) as told:
        await stores.ensure_bucket(replace(bucket, endpoint="http://nowhere.invalid:9000"), create=True)
    assert "does not resolve" in told.value.message


def settings(**more: Any) -> BucketSettings:
    """What the spec asks for."""
    return BucketSettings(**more)


async def manage(stores: ObjectStores, bucket: Bucket, wanted: BucketSettings) -> None:
    """As the operator does."""
    place = ObjectStore(
        None,
        "us-east-1",
        bucket.name,
        bucket.prefix,
        "path",
        BucketCreation.NEVER,
        None,
        None,
        None,
        None,
        wanted,
    )
    await stores.apply_settings(bucket, wanted, RULE, lifecycle.rule(OWNER, place))


async def test_versioning_is_turned_on(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    await manage(stores, bucket, settings(versioned=True))
    assert store.client().get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"


async def test_encryption_is_set_and_never_weakened(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    await manage(stores, bucket, settings(encryption="AES256"))
    await manage(stores, bucket, settings(encryption="aws:kms", kms_key=KMS_KEY))
    client = store.client()
    client.put_object(Bucket=bucket.name, Key="team-a/mlflow/a", Body=b"x")
    assert client.head_object(Bucket=bucket.name, Key="team-a/mlflow/a")["ServerSideEncryption"] == "aws:kms"
    for wanted in (settings(encryption="AES256"), settings(encryption="aws:kms", kms_key="other")):
        with pytest.raises(ConfigurationError) as told:
            await manage(stores, bucket, wanted)
        assert told.value.reason is Reason.BUCKET_SETTINGS_REFUSED
        assert "is left so" in told.value.message


async def test_a_key_that_the_key_management_has_not_is_told(stores: ObjectStores, bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError) as told:
        await manage(stores, bucket, settings(encryption="aws:kms", kms_key="unknown"))
    assert told.value.reason is Reason.BUCKET_SETTINGS_REFUSED
    assert "kmsKeyID" in told.value.message


async def test_a_lifecycle_of_others_stays(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    client = store.client()
    theirs: Any = {
        "ID": "theirs",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 7},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": [theirs]})

    def live() -> dict[str, Any]:
        found: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
        return {rule["ID"]: rule for rule in found["Rules"]}

    await manage(stores, bucket, settings(lifecycle=True, noncurrent_days=30, abort_days=7))
    assert live()["theirs"] == theirs
    assert live()[RULE]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert live()[RULE]["Filter"] == {"Prefix": "team-a/mlflow/"}
    await manage(
        stores, bucket, settings(lifecycle=True, abort_days=7)
    )  # no rule for MinIO, which does it by itself
    assert set(live()) == {"theirs"}
    await manage(stores, bucket, settings(lifecycle=True, noncurrent_days=3))
    await manage(stores, bucket, settings(lifecycle=True))
    assert live() == {"theirs": theirs}


async def test_a_lifecycle_that_could_not_be_written_back_whole_is_left_alone(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """MinIO has parts of its own, which boto3 drops in reading."""
    xml = (
        "<LifecycleConfiguration><Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter>"
        "<DelMarkerExpiration><Days>3</Days></DelMarkerExpiration></Rule></LifecycleConfiguration>"
    )
    client = store.client()

    def theirs(request: Any, **_: Any) -> None:
        request.data = xml.encode()

    client.meta.events.register("before-sign.s3.PutBucketLifecycleConfiguration", theirs)
    anything: Any = {"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration=anything, ChecksumAlgorithm="CRC32"
    )
    with pytest.raises(ConfigurationError) as told:
        await manage(stores, bucket, settings(lifecycle=True, noncurrent_days=30))
    assert told.value.reason is Reason.BUCKET_SETTINGS_REFUSED
    assert "DelMarkerExpiration" in told.value.message


async def test_what_is_set_already_is_not_written_again(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """Proved by a key that may read all of it and write nothing."""
    wanted = settings(versioned=True, encryption="AES256", lifecycle=True, noncurrent_days=30)
    await manage(stores, bucket, wanted)
    reads = ("s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration")
    reader = await limited(store, bucket, *reads)
    await manage(stores, reader, wanted)
    with pytest.raises(ConfigurationError) as told:
        await manage(stores, reader, settings(lifecycle=True, noncurrent_days=31))
    assert "s3:PutLifecycleConfiguration" in told.value.message
    assert "take spec.artifacts.s3.lifecycle away" in told.value.message


async def test_a_prefix_is_emptied_with_all_versions_and_nothing_beside_it(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    await manage(stores, bucket, settings(versioned=True))
    client = store.client()
    for key in ("team-a/mlflow/a", "team-a/mlflow/b", "team-a/mlflow/b", "team-a/mlflow2/c", "team-a/d"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket.name, Key="team-a/mlflow/a")
    for _ in range(2):
        await stores.delete_objects(bucket)
        assert everything(store, bucket) == ["team-a/d", "team-a/mlflow2/c"]


async def test_more_than_a_page_is_emptied(
    store: Store, stores: ObjectStores, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_operator.clients.s3.bucket_contents._PAGE", 3)
    for number in range(10):
        store.client().put_object(Bucket=bucket.name, Key=f"team-a/mlflow/{number}", Body=b"x")
    await stores.delete_objects(bucket)
    assert everything(store, bucket) == []


async def test_a_key_that_may_not_delete_is_told(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    store.client().put_object(Bucket=bucket.name, Key="team-a/mlflow/a", Body=b"x")
    with pytest.raises(ConfigurationError) as told:
        await stores.delete_objects(await limited(store, bucket, "s3:ListBucket", "s3:ListBucketVersions"))
    assert "s3:DeleteObject" in told.value.message
    assert everything(store, bucket) == ["team-a/mlflow/a"]


async def test_a_place_that_is_empty_can_be_claimed_and_no_other(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """What lay there before is somebody's, and stays so."""
    assert await stores.has_marker(bucket) is None
    assert not await stores.has_objects(bucket)
    await stores.write_marker(bucket, "ours")
    await stores.write_marker(bucket, "another's")
    assert await stores.has_marker(bucket) == "ours"
    theirs = replace(bucket, prefix="theirs")
    store.client().put_object(Bucket=bucket.name, Key="theirs/file", Body=b"1")
    await stores.write_marker(theirs, "ours")
    assert await stores.has_marker(theirs) is None
    assert await stores.has_objects(theirs)


async def test_the_claim_is_the_last_to_go(
    store: Store, stores: ObjectStores, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in the midst, the rest still counts as ours."""
    monkeypatch.setattr(bucket_contents, "_PAGE", 2)
    await stores.write_marker(bucket, "ours")
    for key in ("1/a/artifacts/x", "models/y", "traces/z"):
        store.client().put_object(Bucket=bucket.name, Key=f"{bucket.folder}{key}", Body=b"1")
    client = store.client()
    bucket_contents.delete_page(client, bucket.name, bucket.folder, "")
    assert await stores.has_marker(bucket) == "ours"
    assert await stores.has_objects(bucket)
    await stores.delete_objects(bucket)
    assert not await stores.has_objects(bucket)
    assert await stores.has_marker(bucket) is None


async def test_a_bucket_that_is_gone_holds_nothing(store: Store, stores: ObjectStores) -> None:
    """Nothing of it stands in the way of an end."""
    nowhere = store.bucket("not-there", "team-a")
    assert await stores.has_marker(nowhere) is None
    assert not await stores.has_objects(nowhere)
