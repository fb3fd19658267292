"""Users of a shared MinIO that the operator creates for servers."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.clients.s3.minio_admin import MinioAdmin, Ownership
from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI, encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, SignedRequests
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.server import ObjectStore, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.minio import ADMIN_FIELD, ROOT_KEY, Store

MINIO_ADMIN, MINIO_API = MinioAdmin(SignedRequests()), MinioAPI(SignedRequests())
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A server with its own user in the store."""

    store: Store
    name: str
    policy: Object
    key: AccessKey

    async def ensure_user(self, **changes: Any) -> None:
        """Create or update the user as the operator does."""
        await MINIO_ADMIN.ensure_user(
            self.store.admin(), changes.get("key", self.key), self.name, changes.get("policy", self.policy)
        )

    async def user_info(self) -> Object | None:
        """The store's information on the user, None if it does not exist."""
        return await admin_info(self.store, "user-info", accessKey=self.key.id)

    async def observed_policy(self) -> Object | None:
        """The policy in the store, None if it does not exist."""
        return await admin_info(self.store, "info-canned-policy", name=self.name)


async def admin_info(store: Store, command: str, **query: str) -> Object | None:
    """Request information as administrator, None if the object does not exist."""
    response = await MINIO_API.call(store.admin(), AdminRequest("GET", command, query))
    return dict(response.content) if response.ok else None


def policy(bucket: str, prefix: str) -> Object:
    """The policy that the operator creates for this bucket and prefix."""
    return bucket_policy.policy(
        ObjectStore(None, "us-east-1", bucket, prefix, "path", BucketCreation.NEVER, None, None, None)
    )


@pytest.fixture
def bucket(store: Store) -> str:
    """A bucket that several servers share."""
    name = f"shared-{next(_numbers)}"
    store.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def create_tenant(store: Store, bucket: str) -> Callable[[str], Tenant]:
    """Factory of tenants with their own prefix."""

    def create(prefix: str) -> Tenant:
        number = next(_numbers)
        key = AccessKey(f"USER{number}", f"secret-of-user-{number}")
        return Tenant(
            store, bucket_policy.name(ServerRef(f"server-{number}", "team", "")), policy(bucket, prefix), key
        )

    return create


async def test_key_allows_everything_that_mlflow_does_under_its_prefix(
    store: Store, bucket: str, create_tenant: Callable[[str], Tenant]
) -> None:
    tenant = create_tenant("team-a/mlflow")
    await tenant.ensure_user()
    client = store.client(tenant.key)
    folder = "team-a/mlflow/1/run/artifacts"
    client.put_object(Bucket=bucket, Key=f"{folder}/model", Body=b"weights")
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{folder}/large")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key=f"{folder}/large", PartNumber=1, UploadId=upload, Body=b"x")
    assert client.list_parts(Bucket=bucket, Key=f"{folder}/large", UploadId=upload)["Parts"]
    parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(
        Bucket=bucket, Key=f"{folder}/large", UploadId=upload, MultipartUpload=parts
    )
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{folder}/given-up")["UploadId"]
    client.abort_multipart_upload(Bucket=bucket, Key=f"{folder}/given-up", UploadId=upload)
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/", Delimiter="/")["Contents"]
    assert {entry["Key"] for entry in listed} == {f"{folder}/model", f"{folder}/large"}
    assert client.get_object(Bucket=bucket, Key=f"{folder}/model")["Body"].read() == b"weights"
    to_delete: Any = {"Objects": [{"Key": f"{folder}/model"}, {"Key": f"{folder}/large"}]}
    assert "Errors" not in client.delete_objects(Bucket=bucket, Delete=to_delete)


@pytest.mark.parametrize(
    ("own_prefix", "other_prefix"),
    [("team-a", "team-ab"), ("team-a", "payroll"), ("team-a/b", "team-a"), ("team-a/b", "team-a/c")],
)
async def test_key_allows_nothing_outside_its_prefix(
    store: Store, bucket: str, create_tenant: Callable[[str], Tenant], own_prefix: str, other_prefix: str
) -> None:
    """Including a prefix that starts with the same characters, and operations on the bucket."""
    tenant = create_tenant(own_prefix)
    await tenant.ensure_user()
    store.client().put_object(Bucket=bucket, Key=f"{other_prefix}/secret", Body=b"secret")
    client = store.client(tenant.key)
    other_object: Any = {"Bucket": bucket, "Key": f"{other_prefix}/secret"}
    requests: list[Callable[[], Any]] = [
        lambda: client.get_object(**other_object),
        lambda: client.head_object(**other_object),
        lambda: client.put_object(**other_object, Body=b"data"),
        lambda: client.delete_object(**other_object),
        lambda: client.create_multipart_upload(**other_object),
        lambda: client.copy_object(Bucket=bucket, Key=f"{own_prefix}/copy", CopySource=other_object),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{other_prefix}/"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=own_prefix),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.list_object_versions(Bucket=bucket),
        lambda: client.list_multipart_uploads(Bucket=bucket),
        lambda: client.get_bucket_policy(Bucket=bucket),
        lambda: client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: client.delete_bucket(Bucket=bucket),
        lambda: client.create_bucket(Bucket=f"{bucket}-new"),
    ]
    for number, request in enumerate(requests):
        with pytest.raises(ClientError) as error:
            request()
        status = error.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == 403, f"request {number}: {error.value}"
    assert store.client().get_object(**other_object)["Body"].read() == b"secret"


async def test_key_cannot_delete_versions(
    store: Store, bucket: str, create_tenant: Callable[[str], Tenant]
) -> None:
    """Objects that a compromised server deletes can be restored."""
    store.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    client = store.client(tenant.key)
    version = client.put_object(Bucket=bucket, Key="team-a/model", Body=b"weights")["VersionId"]
    client.delete_object(Bucket=bucket, Key="team-a/model")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key="team-a/model", VersionId=version)
    restored = store.client().get_object(Bucket=bucket, Key="team-a/model", VersionId=version)
    assert restored["Body"].read() == b"weights"


async def test_unchanged_user_and_policy_are_not_written(create_tenant: Callable[[str], Tenant]) -> None:
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    before = await tenant.user_info()
    assert before
    policy_before = await admin_info(tenant.store, "info-canned-policy", name=tenant.name, v="2")
    await tenant.ensure_user()
    policy_after = await admin_info(tenant.store, "info-canned-policy", name=tenant.name, v="2")
    assert await tenant.user_info() == before
    assert policy_before
    assert policy_after
    assert policy_after["UpdateDate"] == policy_before["UpdateDate"]


async def test_drift_is_corrected(create_tenant: Callable[[str], Tenant]) -> None:
    """A policy with more permissions, a second policy, a disabled user, and another secret."""
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    admin = tenant.store.admin()
    broad = b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}'
    await MINIO_API.call(admin, AdminRequest("PUT", "add-canned-policy", {"name": tenant.name}, broad))
    two_policies = {
        "policyName": f"{tenant.name},readwrite",
        "userOrGroup": tenant.key.id,
        "isGroup": "false",
    }
    await MINIO_API.call(admin, AdminRequest("PUT", "set-user-or-group-policy", two_policies))
    await MINIO_API.call(
        admin, AdminRequest("PUT", "set-user-status", {"accessKey": tenant.key.id, "status": "disabled"})
    )
    await tenant.ensure_user()
    user = await tenant.user_info()
    assert user
    assert (user["policyName"], user["status"]) == (tenant.name, "enabled")
    assert bucket_policy.is_equivalent(await tenant.observed_policy(), tenant.policy)
    await tenant.ensure_user(key=AccessKey(tenant.key.id, "another-secret"))
    assert tenant.store.client(AccessKey(tenant.key.id, "another-secret")).list_objects_v2(
        Bucket=_bucket(tenant.policy), Prefix="team-a/"
    )


async def test_policy_is_updated_with_prefix(bucket: str, create_tenant: Callable[[str], Tenant]) -> None:
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    await tenant.ensure_user(policy=policy(bucket, "team-z"))
    client = tenant.store.client(tenant.key)
    client.put_object(Bucket=bucket, Key="team-z/a", Body=b"")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=bucket, Key="team-a/a", Body=b"")


async def test_new_key_works_before_old_key_is_deleted(create_tenant: Callable[[str], Tenant]) -> None:
    """As in a rotation: one of the keys works at any time."""
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    second = AccessKey(f"{tenant.key.id}B", "secret-of-the-second")
    await tenant.ensure_user(key=second)
    for key in (tenant.key, second):
        assert tenant.store.client(key).list_objects_v2(Bucket=_bucket(tenant.policy), Prefix="team-a/")
    await MINIO_ADMIN.delete_user(tenant.store.admin(), tenant.key.id, tenant.name)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        tenant.store.client(tenant.key).list_objects_v2(Bucket=_bucket(tenant.policy), Prefix="team-a/")
    assert tenant.store.client(second).list_objects_v2(Bucket=_bucket(tenant.policy), Prefix="team-a/")
    await MINIO_ADMIN.delete_policy(tenant.store.admin(), tenant.name)
    assert await tenant.observed_policy(), "the policy of an existing user was deleted"
    await MINIO_ADMIN.delete_user(tenant.store.admin(), second.id, tenant.name)
    await MINIO_ADMIN.delete_policy(tenant.store.admin(), tenant.name)
    assert await tenant.observed_policy() is None


async def test_deletion_is_idempotent(create_tenant: Callable[[str], Tenant]) -> None:
    tenant = create_tenant("team-a")
    await tenant.ensure_user()
    for _ in range(2):
        await MINIO_ADMIN.delete_user(tenant.store.admin(), tenant.key.id, tenant.name)
        await MINIO_ADMIN.delete_policy(tenant.store.admin(), tenant.name)
    assert (await tenant.user_info(), await tenant.observed_policy()) == (None, None)


async def test_users_of_others_are_not_modified(store: Store, create_tenant: Callable[[str], Tenant]) -> None:
    """A tenant can write the Secret with the user name, and enter another tenant's user or the administrator."""
    tenant, other = create_tenant("team-a"), create_tenant("team-b")
    await other.ensure_user()
    before = await other.user_info()
    for key in (
        AccessKey(other.key.id, "new-secret"),
        other.key,
        ROOT_KEY,
        AccessKey(ROOT_KEY.id, "new-secret"),
    ):
        with pytest.raises(ConfigurationError) as error:
            await tenant.ensure_user(key=key)
        assert error.value.reason is Reason.NAME_CONFLICT
    with pytest.raises(ConfigurationError, match="was not created for this server"):
        await MINIO_ADMIN.delete_user(store.admin(), other.key.id, tenant.name)
    assert await other.user_info() == before
    assert store.client(other.key).list_objects_v2(Bucket=_bucket(other.policy), Prefix="team-b/")


async def test_existing_policy_of_the_same_name_is_not_modified(
    create_tenant: Callable[[str], Tenant],
) -> None:
    """For example of another cluster's operator, for a server of the same name."""
    tenant = create_tenant("team-a")
    existing = json.dumps(policy("elsewhere", "team-a")).encode()
    await MINIO_API.call(
        tenant.store.admin(), AdminRequest("PUT", "add-canned-policy", {"name": tenant.name}, existing)
    )
    with pytest.raises(ConfigurationError) as error:
        await tenant.ensure_user()
    assert error.value.reason is Reason.NAME_CONFLICT
    assert bucket_policy.is_equivalent(await tenant.observed_policy(), policy("elsewhere", "team-a"))


async def test_overlapping_prefix_is_rejected(bucket: str, create_tenant: Callable[[str], Tenant]) -> None:
    tenant = create_tenant("team-a/mlflow")
    await tenant.ensure_user()
    for prefix in ("", "team-a", "team-a/mlflow", "team-a/mlflow/1"):
        other = create_tenant(prefix)
        with pytest.raises(ConfigurationError, match="overlap with") as error:
            await other.ensure_user()
        assert error.value.reason is Reason.NAME_CONFLICT
        assert await other.user_info() is None
    await create_tenant("team-a/other").ensure_user()


@pytest.mark.parametrize(
    ("key", "fragment"),
    [
        (AccessKey(ROOT_KEY.id, "wrong-secret"), "rejects the administrator's secret key"),
        (AccessKey("unknown", "wrong-secret"), "does not know the administrator's access key"),
    ],
)
async def test_wrong_administrator_key_is_reported(
    create_tenant: Callable[[str], Tenant], key: AccessKey, fragment: str
) -> None:
    tenant = create_tenant("team-a")
    with pytest.raises(ConfigurationError, match=fragment) as error:
        await MINIO_ADMIN.ensure_user(tenant.store.admin(key), tenant.key, tenant.name, tenant.policy)
    assert error.value.reason is Reason.PROVISIONING_DENIED
    assert ADMIN_FIELD in error.value.message
    assert "wrong-secret" not in error.value.message
    with pytest.raises(ConfigurationError, match=fragment):
        await MINIO_ADMIN.check(tenant.store.admin(key))


async def test_key_without_admin_permissions_is_reported(create_tenant: Callable[[str], Tenant]) -> None:
    tenant, other = create_tenant("team-a"), create_tenant("team-b")
    await other.ensure_user()
    with pytest.raises(ConfigurationError, match="admin:CreateUser") as error:
        await MINIO_ADMIN.ensure_user(tenant.store.admin(other.key), tenant.key, tenant.name, tenant.policy)
    assert error.value.reason is Reason.PROVISIONING_DENIED
    with pytest.raises(ConfigurationError, match="admin:CreateUser"):
        await MINIO_ADMIN.check(tenant.store.admin(other.key))


async def test_adoption_ends_the_access_of_a_deleted_namespace(store: Store, bucket: str) -> None:
    """Of both users that it had during a rotation, and of keys that they created for themselves or assumed.

    A user whose Secret was restored works again, as do its temporary credentials, but not the keys made from it.
    """
    number = next(_numbers)
    owner = ServerRef(f"server-{number}", "team", "")
    old, rotated, new = (
        AccessKey(f"{name}{number}", f"secret-of-{name}-user") for name in ("OLD", "ROT", "NEW")
    )

    async def ensure(uid: str, key: AccessKey, *, adopts: bool = False) -> None:
        ownership = Ownership(provisioning.marker(owner, None, uid), "shared", adopts=adopts)
        name = bucket_policy.name(owner, uid)
        await MINIO_ADMIN.ensure_user(store.admin(), key, name, policy(bucket, "team-a"), ownership)

    def works(key: AccessKey, token: str | None = None) -> bool:
        client = store.client(key, token)
        try:
            client.put_object(Bucket=bucket, Key="team-a/model", Body=b"weights")
            client.get_object(Bucket=bucket, Key="team-a/model")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return False
        return True

    for key in (old, rotated):
        await ensure("uid-1", key)
    child = AccessKey(f"CHILD{number}", "secret-of-a-child")
    body = encrypt_body({"accessKey": child.id, "secretKey": child.secret}, old.secret)
    request = AdminRequest("PUT", "add-service-account", {}, body)
    assert (await MINIO_API.call(store.admin(), request, signed_by=old)).ok
    session, token = store.assume_role(old)
    assert all((works(old), works(rotated), works(child), works(session, token)))
    with pytest.raises(ConfigurationError) as error:
        await ensure("uid-2", new)
    assert error.value.reason is Reason.ADOPTION_REQUIRED
    assert works(old)
    await ensure("uid-2", new, adopts=True)
    assert works(new)
    assert not any((works(old), works(rotated), works(child), works(session, token)))
    await ensure("uid-2", new)
    await ensure("uid-2", old, adopts=True)
    assert works(old)
    assert not any((works(rotated), works(child)))
    await MINIO_ADMIN.delete_user(store.admin(), rotated.id, bucket_policy.name(owner, "uid-1"))
    await ensure("uid-3", new, adopts=True)
    policies = await admin_info(store, "list-canned-policies")
    assert policies
    names = [bucket_policy.name(owner, f"uid-{generation}") for generation in (1, 2, 3)]
    assert [name in policies for name in names] == [False, True, True]


ADMINISTRATOR_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                f"admin:{action}"
                for action in (
                    *("CreateUser", "GetUser", "DeleteUser", "CreatePolicy", "GetPolicy", "DeletePolicy"),
                    *("ListUserPolicies", "AttachUserOrGroupPolicy"),
                )
            ],
        }
    ],
}
"""The permissions in the documentation."""


async def test_administrator_does_not_have_to_be_root(
    store: Store, create_tenant: Callable[[str], Tenant]
) -> None:
    """The permissions in the documentation are sufficient."""
    name, key = f"administrator-{next(_numbers)}", AccessKey("ADMINISTRATOR", "secret-of-administrator")
    request = AdminRequest(
        "PUT", "add-canned-policy", {"name": name}, json.dumps(ADMINISTRATOR_POLICY).encode()
    )
    assert (await MINIO_API.call(store.admin(), request)).ok
    await MINIO_ADMIN.ensure_user(store.admin(), key, name, ADMINISTRATOR_POLICY)
    tenant, admin = create_tenant("team-a"), store.admin(key)
    await MINIO_ADMIN.check(admin)
    await MINIO_ADMIN.ensure_user(admin, tenant.key, tenant.name, tenant.policy)
    await MINIO_ADMIN.ensure_user(
        admin, AccessKey(tenant.key.id, "another-secret"), tenant.name, tenant.policy
    )
    await MINIO_ADMIN.delete_user(admin, tenant.key.id, tenant.name)
    await MINIO_ADMIN.delete_policy(admin, tenant.name)
    assert (await tenant.user_info(), await tenant.observed_policy()) == (None, None)


def _bucket(document: Object) -> str:
    return str(document["Statement"][0]["Resource"][0]).rpartition(":")[2]
