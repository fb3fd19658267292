"""Buckets on a real MinIO: creation, access check, settings, deletion, and the message for each error."""

import asyncio
import itertools
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.clients.s3 import bucket_contents, lifecycle
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI
from mlflow_operator.clients.s3.signed_request import AccessKey, SignedRequests
from mlflow_operator.model.server import BucketSettings, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.contracts.minio import FIELD, KMS_KEY, Store
from tests.e2e.certificates import CertificateAuthority, create_authority

OWNER = ServerRef("tracking", "team-a", "uid")
RULE_ID = lifecycle.rule_id(OWNER)
MINIO_ADMIN, MINIO_API = MinioAdmin(SignedRequests()), MinioAPI(SignedRequests())
_numbers = itertools.count(1)


@pytest.fixture
async def bucket(store: Store, stores: ObjectStores) -> Bucket:
    """An existing bucket, with the server's prefix."""
    bucket = store.bucket(f"models-{next(_numbers)}", "team-a/mlflow")
    assert await stores.ensure_bucket(bucket, create=True)
    return bucket


async def with_limited_key(store: Store, bucket: Bucket, *actions: str) -> Bucket:
    """The same bucket with a new key that allows only these actions."""
    number = next(_numbers)
    statement = {"Effect": "Allow", "Action": [*actions], "Resource": ["arn:aws:s3:::*"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    name, key = f"limited-{number}", AccessKey(f"LIMITED{number}", "secret-of-limited")
    assert (
        await MINIO_API.call(store.admin(), AdminRequest("PUT", "add-canned-policy", {"name": name}, policy))
    ).ok
    await MINIO_ADMIN.ensure_user(store.admin(), key, name, {"Statement": [statement]})
    return replace(bucket, access_key=key.id, secret_key=key.secret)


def all_keys(store: Store, bucket: Bucket) -> list[str]:
    """Keys of all versions and delete markers in the bucket."""
    listed: Any = store.client().list_object_versions(Bucket=bucket.name)
    return sorted(entry["Key"] for entry in (*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())))


async def test_bucket_is_created_once(store: Store, stores: ObjectStores) -> None:
    bucket = store.bucket(f"models-{next(_numbers)}")
    assert await stores.ensure_bucket(bucket, create=True)
    assert not await stores.ensure_bucket(bucket, create=True)
    assert not await stores.ensure_bucket(bucket, create=False)


async def test_concurrent_creation_of_the_same_bucket(store: Store, stores: ObjectStores) -> None:
    """At worst the second server gets Progressing, and finds the bucket on its next attempt."""
    buckets = [store.bucket(name, prefix) for name in [f"models-{next(_numbers)}"] for prefix in ("a", "b")]
    results = await asyncio.gather(
        *(stores.ensure_bucket(bucket, create=True) for bucket in buckets), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, ReconcileError)]
    assert [error.reason for error in errors] in ([], [Reason.PROGRESSING])
    assert not [result for result in results if not isinstance(result, bool | ReconcileError)]
    for bucket in buckets:
        assert not await stores.ensure_bucket(bucket, create=True)


async def test_access_check_leaves_no_objects(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """No object, no version, and no incomplete upload."""
    await stores.apply_settings(bucket, BucketSettings(versioned=True), RULE_ID, None)
    await stores.check_access(bucket)
    assert all_keys(store, bucket) == []
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
async def test_missing_permission_is_reported(
    store: Store, stores: ObjectStores, bucket: Bucket, allowed: tuple[str, ...], missing: str
) -> None:
    key = await with_limited_key(store, bucket, *allowed)
    assert not await stores.ensure_bucket(key, create=True)
    with pytest.raises(ConfigurationError) as error:
        await stores.check_access(key)
    assert error.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert f"Grant it {missing}" in error.value.message
    assert FIELD in error.value.message


async def test_key_limited_to_prefix_is_sufficient(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """Platform teams issue such keys, which have no permission for the bucket as a whole."""
    actions = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    key = await with_limited_key(store, bucket, "s3:ListBucket", *actions)
    policy = {
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
                "Action": [*actions],
                "Resource": [f"arn:aws:s3:::{bucket.name}/team-a/mlflow/*"],
            },
        ],
    }
    name = f"limited-{key.access_key.removeprefix('LIMITED')}"
    await MINIO_ADMIN.ensure_user(store.admin(), AccessKey(key.access_key, key.secret_key), name, policy)
    assert not await stores.ensure_bucket(key, create=False)
    await stores.check_access(key)


async def test_bucket_that_key_cannot_list_is_reported(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """AWS gives the same response for a bucket of another account. MinIO has no accounts."""
    key = await with_limited_key(store, bucket, "s3:GetObject")
    with pytest.raises(ConfigurationError) as error:
        await stores.ensure_bucket(key, create=True)
    assert error.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert "belongs to another account" in error.value.message


async def test_bucket_that_key_cannot_create_is_reported(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    key = await with_limited_key(store, replace(bucket, name=f"{bucket.name}-other"), "s3:ListBucket")
    with pytest.raises(ConfigurationError) as error:
        await stores.ensure_bucket(key, create=True)
    assert "is not allowed to create it" in error.value.message
    with pytest.raises(ConfigurationError) as error:
        await stores.ensure_bucket(key, create=False)
    assert error.value.reason is Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"access_key": "unknown"}, "does not know the access key"),
        ({"secret_key": "wrong-secret"}, "rejects the secret access key"),
    ],
)
async def test_wrong_key_is_reported(
    stores: ObjectStores, bucket: Bucket, changes: dict[str, str], fragment: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        await stores.ensure_bucket(replace(bucket, **changes), create=True)
    assert error.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert fragment in error.value.message
    assert "wrong-secret" not in error.value.message


@pytest.mark.parametrize("api", ["bucket", "administrator"])
async def test_wrong_scheme_and_wrong_certificate_are_reported(  # noqa: PLR0917
    store: Store,
    tls_store: Store,
    company_ca: CertificateAuthority,
    stores: ObjectStores,
    tmp_path: Path,
    api: str,
) -> None:
    """The message says what to configure instead, and does not blame the key."""
    ca, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    ca.write_text(company_ca.pem)
    other.write_text(create_authority("Other CA").pem)
    plain, secure = store.endpoint, tls_store.endpoint
    for endpoint, ca_path, fragment in (
        (secure.replace("https", "http"), None, "Use https:// instead of http://"),
        (plain.replace("http", "https"), None, "Use http:// instead of https://"),
        (secure, str(other), "spec.artifacts.s3.tls.caSecretRef"),
        (secure.replace("localhost", "127.0.0.1"), str(ca), "certificate for another host"),
    ):
        with pytest.raises(ConfigurationError) as error:
            await _connect(stores, replace(store.bucket("models"), endpoint=endpoint, ca_path=ca_path), api)
        assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE, endpoint
        assert fragment in error.value.message
    await _connect(stores, replace(store.bucket("models"), endpoint=secure, ca_path=str(ca)), api)


async def _connect(stores: ObjectStores, bucket: Bucket, api: str) -> None:
    if api == "bucket":
        await stores.ensure_bucket(bucket, create=True)
        return
    admin = replace(Store(bucket.endpoint or "", "").admin(), ca_path=bucket.ca_path)
    await MINIO_ADMIN.ensure_user(
        admin, AccessKey("ANY", "secret-of-any"), "mlflow-operator.team.any", _POLICY
    )


_POLICY: Any = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::any/*"]}],
}


async def test_host_name_that_does_not_resolve_is_reported(stores: ObjectStores, bucket: Bucket) -> None:
    with pytest.raises(ReconcileError) as error:
        await stores.ensure_bucket(replace(bucket, endpoint="http://nowhere.invalid:9000"), create=True)
    assert "does not resolve" in error.value.message


def settings(**fields: Any) -> BucketSettings:
    """The settings in the spec."""
    return BucketSettings(**fields)


async def apply_settings(stores: ObjectStores, bucket: Bucket, desired: BucketSettings) -> None:
    """Apply the settings as the operator does."""
    rule = lifecycle.rule(RULE_ID, bucket.prefix, desired)
    await stores.apply_settings(bucket, desired, RULE_ID, rule)


async def test_versioning_is_enabled(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    await apply_settings(stores, bucket, settings(versioned=True))
    assert store.client().get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"


async def test_encryption_is_set_and_not_weakened(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    await apply_settings(stores, bucket, settings(encryption="AES256"))
    await apply_settings(stores, bucket, settings(encryption="aws:kms", kms_key=KMS_KEY))
    client = store.client()
    client.put_object(Bucket=bucket.name, Key="team-a/mlflow/a", Body=b"x")
    assert client.head_object(Bucket=bucket.name, Key="team-a/mlflow/a")["ServerSideEncryption"] == "aws:kms"
    for desired in (settings(encryption="AES256"), settings(encryption="aws:kms", kms_key="other")):
        with pytest.raises(ConfigurationError) as error:
            await apply_settings(stores, bucket, desired)
        assert error.value.reason is Reason.BUCKET_SETTINGS_REFUSED
        assert "does not change it" in error.value.message


async def test_unknown_kms_key_is_reported(stores: ObjectStores, bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError) as error:
        await apply_settings(stores, bucket, settings(encryption="aws:kms", kms_key="unknown"))
    assert error.value.reason is Reason.BUCKET_SETTINGS_REFUSED
    assert "kmsKeyID" in error.value.message


async def test_other_lifecycle_rules_do_not_change(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    client = store.client()
    other: Any = {
        "ID": "other",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 7},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": [other]})

    def observed_rules() -> dict[str, Any]:
        configuration: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
        return {rule["ID"]: rule for rule in configuration["Rules"]}

    await apply_settings(stores, bucket, settings(lifecycle=True, noncurrent_days=30, abort_multipart_days=7))
    assert observed_rules()["other"] == other
    assert observed_rules()[RULE_ID]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert observed_rules()[RULE_ID]["Filter"] == {"Prefix": "team-a/mlflow/"}
    # MinIO deletes incomplete uploads itself and gets no rule for them.
    await apply_settings(stores, bucket, settings(lifecycle=True, abort_multipart_days=7))
    assert set(observed_rules()) == {"other"}
    await apply_settings(stores, bucket, settings(lifecycle=True, noncurrent_days=3))
    await apply_settings(stores, bucket, settings(lifecycle=True))
    assert observed_rules() == {"other": other}


async def test_lifecycle_with_unknown_elements_is_not_modified(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """MinIO has its own elements, which boto3 does not parse."""
    xml = (
        "<LifecycleConfiguration><Rule><ID>other</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter>"
        "<DelMarkerExpiration><Days>3</Days></DelMarkerExpiration></Rule></LifecycleConfiguration>"
    )
    client = store.client()

    def replace_body(request: Any, **_: Any) -> None:
        request.data = xml.encode()

    client.meta.events.register("before-sign.s3.PutBucketLifecycleConfiguration", replace_body)
    placeholder: Any = {"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration=placeholder, ChecksumAlgorithm="CRC32"
    )
    with pytest.raises(ConfigurationError) as error:
        await apply_settings(stores, bucket, settings(lifecycle=True, noncurrent_days=30))
    assert error.value.reason is Reason.BUCKET_SETTINGS_REFUSED
    assert "DelMarkerExpiration" in error.value.message


async def test_unchanged_settings_are_not_written(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """Verified with a key that may read the settings and not write them."""
    desired = settings(versioned=True, encryption="AES256", lifecycle=True, noncurrent_days=30)
    await apply_settings(stores, bucket, desired)
    read_actions = ("s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration")
    reader = await with_limited_key(store, bucket, *read_actions)
    await apply_settings(stores, reader, desired)
    with pytest.raises(ConfigurationError) as error:
        await apply_settings(stores, reader, settings(lifecycle=True, noncurrent_days=31))
    assert "s3:PutLifecycleConfiguration" in error.value.message
    assert "remove spec.artifacts.s3.lifecycle" in error.value.message


async def test_deletion_covers_all_versions_of_prefix_only(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    await apply_settings(stores, bucket, settings(versioned=True))
    client = store.client()
    for key in ("team-a/mlflow/a", "team-a/mlflow/b", "team-a/mlflow/b", "team-a/mlflow2/c", "team-a/d"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    client.delete_object(Bucket=bucket.name, Key="team-a/mlflow/a")
    for _ in range(2):
        await stores.delete_objects(bucket)
        assert all_keys(store, bucket) == ["team-a/d", "team-a/mlflow2/c"]


async def test_deletion_of_several_pages(store: Store, bucket: Bucket) -> None:
    for number in range(10):
        store.client().put_object(Bucket=bucket.name, Key=f"team-a/mlflow/{number}", Body=b"x")
    with closing(ObjectStores(page_size=3)) as stores:
        await stores.delete_objects(bucket)
    assert all_keys(store, bucket) == []


async def test_missing_permission_to_delete_is_reported(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    store.client().put_object(Bucket=bucket.name, Key="team-a/mlflow/a", Body=b"x")
    with pytest.raises(ConfigurationError) as error:
        await stores.delete_objects(
            await with_limited_key(store, bucket, "s3:ListBucket", "s3:ListBucketVersions")
        )
    assert "s3:DeleteObject" in error.value.message
    assert all_keys(store, bucket) == ["team-a/mlflow/a"]


async def test_marker_is_written_only_to_empty_prefix(
    store: Store, stores: ObjectStores, bucket: Bucket
) -> None:
    """Existing objects belong to someone else and are not marked."""
    assert await stores.read_marker(bucket) is None
    assert not await stores.has_objects(bucket)
    await stores.write_marker(bucket, "ours")
    await stores.write_marker(bucket, "other")
    assert await stores.read_marker(bucket) == "ours"
    other = replace(bucket, prefix="other")
    store.client().put_object(Bucket=bucket.name, Key="other/file", Body=b"1")
    await stores.write_marker(other, "ours")
    assert await stores.read_marker(other) is None
    assert await stores.has_objects(other)


async def test_marker_is_deleted_last(store: Store, stores: ObjectStores, bucket: Bucket) -> None:
    """After an interruption the remaining objects are still marked as the server's."""
    await stores.write_marker(bucket, "ours")
    for key in ("1/a/artifacts/x", "models/y", "traces/z"):
        store.client().put_object(Bucket=bucket.name, Key=f"{bucket.key_prefix}{key}", Body=b"1")
    client = store.client()
    bucket_contents.delete_page(client, bucket.name, bucket.key_prefix, "", page_size=2)
    assert await stores.read_marker(bucket) == "ours"
    assert await stores.has_objects(bucket)
    await stores.delete_objects(bucket)
    assert not await stores.has_objects(bucket)
    assert await stores.read_marker(bucket) is None


async def test_missing_bucket_has_no_objects(store: Store, stores: ObjectStores) -> None:
    """So a missing bucket does not block the deletion of the server."""
    missing = store.bucket("not-there", "team-a")
    assert await stores.read_marker(missing) is None
    assert not await stores.has_objects(missing)
