"""Users of a shared MinIO, made for servers by its administrator."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.clients.s3.minio_admin import delete_user, ensure_user, remove_policy
from mlflow_operator.clients.s3.minio_api import AdminRequest, call
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketCreation, ObjectStore, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.minio import ADMIN_FIELD, ROOT, Store

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A server that is to have a key of its own."""

    store: Store
    name: str
    policy: Object
    key: AccessKey

    async def admit(self, **other: Any) -> None:
        """What the operator does."""
        await ensure_user(
            self.store.admin(), other.get("key", self.key), self.name, other.get("policy", self.policy)
        )

    async def user(self) -> Object | None:
        """What the store knows of its user, None for nothing."""
        return await known(self.store, "user-info", accessKey=self.key.id)

    async def live_policy(self) -> Object | None:
        """The policy as the store has it, None for none."""
        return await known(self.store, "info-canned-policy", name=self.name)


async def known(store: Store, command: str, **query: str) -> Object | None:
    """What an administrator is told of something, None of nothing."""
    answer = await call(store.admin(), AdminRequest("GET", command, query))
    return dict(answer.content) if answer.good else None


def policy(bucket: str, prefix: str) -> Object:
    """As the operator makes it."""
    return bucket_policy.policy(
        ObjectStore(None, "us-east-1", bucket, prefix, "path", BucketCreation.NEVER, None, None, None)
    )


@pytest.fixture
def bucket(store: Store) -> str:
    """A bucket that several share."""
    name = f"shared-{next(_numbers)}"
    store.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def tenant(store: Store, bucket: str) -> Callable[[str], Tenant]:
    """Makes servers with a prefix each."""

    def make(prefix: str) -> Tenant:
        number = next(_numbers)
        key = AccessKey(f"USER{number}", f"secret-of-user-{number}")
        return Tenant(
            store, bucket_policy.name(ServerRef(f"server-{number}", "team", "")), policy(bucket, prefix), key
        )

    return make


async def test_a_key_does_under_its_prefix_all_that_mlflow_does(
    store: Store, bucket: str, tenant: Callable[[str], Tenant]
) -> None:
    one = tenant("team-a/mlflow")
    await one.admit()
    client = store.client(one.key)
    folder = "team-a/mlflow/1/run/artifacts"
    client.put_object(Bucket=bucket, Key=f"{folder}/model", Body=b"weights")
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{folder}/large")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key=f"{folder}/large", PartNumber=1, UploadId=upload, Body=b"x")
    assert client.list_parts(Bucket=bucket, Key=f"{folder}/large", UploadId=upload)["Parts"]
    done: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(
        Bucket=bucket, Key=f"{folder}/large", UploadId=upload, MultipartUpload=done
    )
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{folder}/given-up")["UploadId"]
    client.abort_multipart_upload(Bucket=bucket, Key=f"{folder}/given-up", UploadId=upload)
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/", Delimiter="/")["Contents"]
    assert {each["Key"] for each in listed} == {f"{folder}/model", f"{folder}/large"}
    assert client.get_object(Bucket=bucket, Key=f"{folder}/model")["Body"].read() == b"weights"
    gone: Any = {"Objects": [{"Key": f"{folder}/model"}, {"Key": f"{folder}/large"}]}
    assert "Errors" not in client.delete_objects(Bucket=bucket, Delete=gone)


@pytest.mark.parametrize(
    ("own", "other"),
    [("team-a", "team-ab"), ("team-a", "payroll"), ("team-a/b", "team-a"), ("team-a/b", "team-a/c")],
)
async def test_a_key_does_nothing_beside_its_prefix(
    store: Store, bucket: str, tenant: Callable[[str], Tenant], own: str, other: str
) -> None:
    """Not in the folder whose name merely begins alike either; and nothing with the bucket."""
    one = tenant(own)
    await one.admit()
    store.client().put_object(Bucket=bucket, Key=f"{other}/secret", Body=b"theirs")
    client = store.client(one.key)
    theirs: Any = {"Bucket": bucket, "Key": f"{other}/secret"}
    attempts: list[Callable[[], Any]] = [
        lambda: client.get_object(**theirs),
        lambda: client.head_object(**theirs),
        lambda: client.put_object(**theirs, Body=b"mine"),
        lambda: client.delete_object(**theirs),
        lambda: client.create_multipart_upload(**theirs),
        lambda: client.copy_object(Bucket=bucket, Key=f"{own}/copy", CopySource=theirs),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{other}/"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=own),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.list_object_versions(Bucket=bucket),
        lambda: client.list_multipart_uploads(Bucket=bucket),
        lambda: client.get_bucket_policy(Bucket=bucket),
        lambda: client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: client.delete_bucket(Bucket=bucket),
        lambda: client.create_bucket(Bucket=f"{bucket}-mine"),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises(ClientError) as refused:
            attempt()
        status = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == 403, f"attempt {number}: {refused.value}"
    assert store.client().get_object(**theirs)["Body"].read() == b"theirs"


async def test_a_key_can_t_undo_versioning(
    store: Store, bucket: str, tenant: Callable[[str], Tenant]
) -> None:
    """What a server that was broken into deletes can be brought back."""
    store.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = tenant("team-a")
    await one.admit()
    client = store.client(one.key)
    version = client.put_object(Bucket=bucket, Key="team-a/model", Body=b"weights")["VersionId"]
    client.delete_object(Bucket=bucket, Key="team-a/model")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key="team-a/model", VersionId=version)
    found = store.client().get_object(Bucket=bucket, Key="team-a/model", VersionId=version)
    assert found["Body"].read() == b"weights"


async def test_what_is_as_it_should_be_is_not_written_again(tenant: Callable[[str], Tenant]) -> None:
    one = tenant("team-a")
    await one.admit()
    before = await one.user()
    assert before
    policy_before = await known(one.store, "info-canned-policy", name=one.name, v="2")
    await one.admit()
    policy_after = await known(one.store, "info-canned-policy", name=one.name, v="2")
    assert await one.user() == before
    assert policy_before
    assert policy_after
    assert policy_after["UpdateDate"] == policy_before["UpdateDate"]


async def test_what_others_have_changed_comes_back(tenant: Callable[[str], Tenant]) -> None:
    """A policy that was widened, a second one given, a user disabled or another secret: all is put right."""
    one = tenant("team-a")
    await one.admit()
    admin = one.store.admin()
    wide = b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}'
    await call(admin, AdminRequest("PUT", "add-canned-policy", {"name": one.name}, wide))
    both = {"policyName": f"{one.name},readwrite", "userOrGroup": one.key.id, "isGroup": "false"}
    await call(admin, AdminRequest("PUT", "set-user-or-group-policy", both))
    await call(admin, AdminRequest("PUT", "set-user-status", {"accessKey": one.key.id, "status": "disabled"}))
    await one.admit()
    user = await one.user()
    assert user
    assert (user["policyName"], user["status"]) == (one.name, "enabled")
    assert bucket_policy.same(await one.live_policy(), one.policy)
    await one.admit(key=AccessKey(one.key.id, "another-secret"))
    assert one.store.client(AccessKey(one.key.id, "another-secret")).list_objects_v2(
        Bucket=_bucket(one.policy), Prefix="team-a/"
    )


async def test_the_policy_follows_the_prefix(bucket: str, tenant: Callable[[str], Tenant]) -> None:
    one = tenant("team-a")
    await one.admit()
    await one.admit(policy=policy(bucket, "team-z"))
    client = one.store.client(one.key)
    client.put_object(Bucket=bucket, Key="team-z/a", Body=b"")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=bucket, Key="team-a/a", Body=b"")


async def test_a_second_key_takes_over_before_the_first_one_goes(tenant: Callable[[str], Tenant]) -> None:
    """As a rotation goes: at no moment does neither work."""
    one = tenant("team-a")
    await one.admit()
    second = AccessKey(f"{one.key.id}B", "secret-of-the-second")
    await one.admit(key=second)
    for key in (one.key, second):
        assert one.store.client(key).list_objects_v2(Bucket=_bucket(one.policy), Prefix="team-a/")
    await delete_user(one.store.admin(), one.key.id, one.name)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        one.store.client(one.key).list_objects_v2(Bucket=_bucket(one.policy), Prefix="team-a/")
    assert one.store.client(second).list_objects_v2(Bucket=_bucket(one.policy), Prefix="team-a/")
    await remove_policy(one.store.admin(), one.name)
    assert await one.live_policy(), "a policy that a user still has is taken away"
    await delete_user(one.store.admin(), second.id, one.name)
    await remove_policy(one.store.admin(), one.name)
    assert await one.live_policy() is None


async def test_all_can_be_taken_away_twice(tenant: Callable[[str], Tenant]) -> None:
    one = tenant("team-a")
    await one.admit()
    for _ in range(2):
        await delete_user(one.store.admin(), one.key.id, one.name)
        await remove_policy(one.store.admin(), one.name)
    assert (await one.user(), await one.live_policy()) == (None, None)


async def test_nobody_elses_user_is_touched(store: Store, tenant: Callable[[str], Tenant]) -> None:
    """The Secret that names the user is in the tenant's namespace: it could name another's, or the administrator."""
    one, other = tenant("team-a"), tenant("team-b")
    await other.admit()
    before = await other.user()
    for key in (AccessKey(other.key.id, "mine-from-now-on"), other.key, ROOT, AccessKey(ROOT.id, "mine-now")):
        with pytest.raises(ConfigurationError) as told:
            await one.admit(key=key)
        assert told.value.reason is Reason.NAME_CONFLICT
    with pytest.raises(ConfigurationError, match="was not made for this server"):
        await delete_user(store.admin(), other.key.id, one.name)
    assert await other.user() == before
    assert store.client(other.key).list_objects_v2(Bucket=_bucket(other.policy), Prefix="team-b/")


async def test_a_policy_of_that_name_made_by_others_is_not_touched(tenant: Callable[[str], Tenant]) -> None:
    """By another cluster's operator, say, for a server of the same name."""
    one = tenant("team-a")
    theirs = json.dumps(policy("elsewhere", "team-a")).encode()
    await call(one.store.admin(), AdminRequest("PUT", "add-canned-policy", {"name": one.name}, theirs))
    with pytest.raises(ConfigurationError) as told:
        await one.admit()
    assert told.value.reason is Reason.NAME_CONFLICT
    assert bucket_policy.same(await one.live_policy(), policy("elsewhere", "team-a"))


async def test_no_server_gets_a_key_to_anothers_place(bucket: str, tenant: Callable[[str], Tenant]) -> None:
    one = tenant("team-a/mlflow")
    await one.admit()
    for prefix in ("", "team-a", "team-a/mlflow", "team-a/mlflow/1"):
        thief = tenant(prefix)
        with pytest.raises(ConfigurationError, match="overlaps") as told:
            await thief.admit()
        assert told.value.reason is Reason.NAME_CONFLICT
        assert await thief.user() is None
    await tenant("team-a/other").admit()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (AccessKey(ROOT.id, "wrong-secret"), "refuses the administrator's secret key"),
        (AccessKey("nobody", "wrong-secret"), "does not know the administrator's access key"),
    ],
)
async def test_a_wrong_administrators_key_is_told(
    tenant: Callable[[str], Tenant], key: AccessKey, words: str
) -> None:
    one = tenant("team-a")
    with pytest.raises(ConfigurationError, match=words) as told:
        await ensure_user(one.store.admin(key), one.key, one.name, one.policy)
    assert told.value.reason is Reason.PROVISIONING_DENIED
    assert ADMIN_FIELD in told.value.message
    assert "wrong-secret" not in told.value.message


async def test_a_key_that_is_no_administrators_is_told(tenant: Callable[[str], Tenant]) -> None:
    one, other = tenant("team-a"), tenant("team-b")
    await other.admit()
    with pytest.raises(ConfigurationError, match="admin:CreateUser") as told:
        await ensure_user(one.store.admin(other.key), one.key, one.name, one.policy)
    assert told.value.reason is Reason.PROVISIONING_DENIED


ADMINISTRATOR = {
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
"""As the documentation says."""


async def test_an_administrator_need_not_be_root(store: Store, tenant: Callable[[str], Tenant]) -> None:
    """What the documentation allows it is enough."""
    name, key = f"administrator-{next(_numbers)}", AccessKey("ADMINISTRATOR", "secret-of-administrator")
    made = AdminRequest("PUT", "add-canned-policy", {"name": name}, json.dumps(ADMINISTRATOR).encode())
    assert (await call(store.admin(), made)).good
    await ensure_user(store.admin(), key, name, ADMINISTRATOR)
    one, admin = tenant("team-a"), store.admin(key)
    await ensure_user(admin, one.key, one.name, one.policy)
    await ensure_user(admin, AccessKey(one.key.id, "another-secret"), one.name, one.policy)
    await delete_user(admin, one.key.id, one.name)
    await remove_policy(admin, one.name)
    assert (await one.user(), await one.live_policy()) == (None, None)


def _bucket(document: Object) -> str:
    return str(document["Statement"][0]["Resource"][0]).rpartition(":")[2]
