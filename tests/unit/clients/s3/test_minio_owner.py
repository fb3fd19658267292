"""The owner of a policy on a platform, against a fake admin API that keeps users and policies."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.clients.s3.minio_admin import MinioAdmin, Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.clients.s3.conftest import StartServer

OWNER = ServerRef("tracking", "team-a", "")
NAME, NEXT_NAME = bucket_policy.name(OWNER, "uid-1"), bucket_policy.name(OWNER, "uid-2")
USER, NEXT_USER = AccessKey("FIRSTKEY", "secret-1"), AccessKey("SECONDKEY", "secret-2")
NEW_USER = AccessKey("THIRDKEY", "secret-3")
POLICY: Object = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Resource": ["arn:aws:s3:::a/b/*"]}],
}
BROADER_POLICY: Object = {**POLICY, "Statement": [{"Effect": "Allow", "Resource": ["arn:aws:s3:::a/*"]}]}
OTHER_POLICY: Object = {**POLICY, "Statement": [{"Effect": "Allow", "Resource": ["arn:aws:s3:::a/c/*"]}]}


def ownership(namespace_uid: str, *, adopts: bool = False) -> Ownership:
    """What identifies the server in a namespace with this uid."""
    return Ownership(provisioning.marker(OWNER, None, namespace_uid), "shared", adopts=adopts)


class FakeMinio:
    """The part of MinIO's admin API that the client uses. Every signature of a known user is valid."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.policies: dict[str, Any] = {}
        self.writes = 0
        self.removed: list[str] = []
        self.fails_at = 0
        """The write that fails, with all later ones, counted from 1; 0 for none."""

    def has_access(self, user: AccessKey) -> bool:
        """Whether a user has a policy that allows anything."""
        policy = self.policies.get(self.users.get(user.id, ""), {"Statement": []})
        return any(statement["Effect"] == "Allow" for statement in policy["Statement"])

    async def respond(self, request: web.Request) -> web.Response:
        """Respond to a request."""
        command, query = request.path.rpartition("/")[2], request.query
        signed_by = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        if signed_by not in {"root", *self.users}:
            return web.Response(status=403, text='{"Code": "InvalidAccessKeyId"}')
        if request.method == "GET":
            return self._read(command, query.get("accessKey") or query.get("name") or "")
        self.writes += 1
        if 0 < self.fails_at <= self.writes:
            return web.Response(status=503, text='{"Code": "XMinioServerNotInitialized"}')
        return self._write(command, query, await request.text() if command == "add-canned-policy" else "")

    def _write(self, command: str, query: Mapping[str, str], body: str) -> web.Response:
        match command:
            case "add-canned-policy":
                self.policies[query["name"]] = json.loads(body)
            case "add-user":
                self.users[query["accessKey"]] = ""
            case "set-user-or-group-policy":
                self.users[query["userOrGroup"]] = query["policyName"]
            case "remove-user":
                del self.users[query["accessKey"]]
                self.removed.append(query["accessKey"])
            case "remove-canned-policy" if query["name"] in self.users.values():
                return web.Response(status=400, text='{"Code": "XMinioIAMPolicyInUse"}')
            case "remove-canned-policy":
                self.policies.pop(query["name"], None)
        return web.Response()

    def _read(self, command: str, name: str) -> web.Response:
        if command == "list-canned-policies":
            return web.json_response(self.policies)
        is_user = command == "user-info"
        if name not in (self.users if is_user else self.policies):
            code = "XMinioAdminNoSuchUser" if is_user else "XMinioAdminNoSuchPolicy"
            return web.Response(status=404, text=json.dumps({"Code": code}))
        user_info = {"policyName": self.users.get(name), "status": "enabled"}
        return web.json_response(user_info if is_user else self.policies[name])


@pytest.fixture
def minio() -> FakeMinio:
    """A store without users."""
    return FakeMinio()


@pytest.fixture
async def admin(minio: FakeMinio, start_server: StartServer) -> Admin:
    """The administrator of the store."""
    endpoint = await start_server(minio.respond)
    return Admin(endpoint, AccessKey("root", "root-secret"), None, "the Secret")


async def ensure(
    admin: Admin, owner: Ownership | None, user: AccessKey = USER, policy: Object | None = None
) -> None:
    """Create or update the user of the server. Without `owner` it uses no platform."""
    uid = owner.marker.rpartition(" ")[2] if owner else None
    name = bucket_policy.name(OWNER, uid)
    await MinioAdmin(SignedRequests()).ensure_user(admin, user, name, policy or POLICY, owner)


async def test_policy_names_its_owner_and_is_not_written_again(minio: FakeMinio, admin: Admin) -> None:
    await ensure(admin, ownership("uid-1"))
    assert minio.policies[NAME]["ID"] == "mlflow-operator.dev: team-a/tracking in namespace uid-1"
    writes = minio.writes
    await ensure(admin, ownership("uid-1"))
    assert minio.writes == writes


@pytest.mark.parametrize("user", [USER, NEXT_USER], ids=["user of the deleted namespace", "new user"])
@pytest.mark.parametrize("policy", [POLICY, BROADER_POLICY], ids=["same prefix", "broader prefix"])
async def test_policy_of_a_deleted_namespace_gives_no_access(
    minio: FakeMinio, admin: Admin, user: AccessKey, policy: Object
) -> None:
    """Not even if its contents need no change, or if the Secret names its user, whose secret would be replaced."""
    await ensure(admin, ownership("uid-1"))
    before, writes = json.dumps(minio.policies), minio.writes
    with pytest.raises(ConfigurationError, match=r"spec\.adoptions") as error:
        await ensure(admin, ownership("uid-2"), user, policy)
    assert error.value.reason is Reason.ADOPTION_REQUIRED
    assert (json.dumps(minio.policies), minio.writes) == (before, writes)


async def test_user_of_a_deleted_namespace_does_not_get_another_prefix(
    minio: FakeMinio, admin: Admin
) -> None:
    """Its policy gives no access to what the server wants, so there is nothing to adopt."""
    await ensure(admin, ownership("uid-1"))
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-2"), USER, OTHER_POLICY)
    assert error.value.reason is Reason.NAME_CONFLICT
    assert set(minio.policies) == {NAME}


async def test_adoption_ends_the_access_of_the_deleted_namespace(minio: FakeMinio, admin: Admin) -> None:
    """Also of the second user that it had during a rotation. The entry in spec.adoptions is then not needed."""
    for user in (USER, NEXT_USER):
        await ensure(admin, ownership("uid-1"), user)
    await ensure(admin, ownership("uid-2", adopts=True), NEW_USER)
    assert [minio.has_access(user) for user in (USER, NEXT_USER, NEW_USER)] == [False, False, True]
    assert minio.policies[NEXT_NAME]["ID"].endswith("uid-2")
    writes = minio.writes
    for adopts in (True, False):
        await ensure(admin, ownership("uid-2", adopts=adopts), NEW_USER)
    assert minio.writes == writes
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-1"))
    assert error.value.reason is Reason.ADOPTION_REQUIRED


async def test_unused_policy_of_the_deleted_namespace_is_deleted(minio: FakeMinio, admin: Admin) -> None:
    await ensure(admin, ownership("uid-1"))
    minio.users.clear()
    await ensure(admin, ownership("uid-2", adopts=True))
    assert set(minio.policies) == {NEXT_NAME}


async def test_restored_user_is_created_again(minio: FakeMinio, admin: Admin) -> None:
    """The Secret of the deleted namespace was restored. Keys that its users made from the user end with the user."""
    await ensure(admin, ownership("uid-1"))
    minio.users[USER.id] = NAME
    await ensure(admin, ownership("uid-2", adopts=True))
    assert minio.removed == [USER.id]
    assert minio.users == {USER.id: NEXT_NAME}
    assert set(minio.policies) == {NEXT_NAME}


@pytest.mark.parametrize("user", [USER, NEW_USER], ids=["restored user", "new user"])
@pytest.mark.parametrize("completed", range(6))
async def test_interrupted_adoption_never_leaves_two_namespaces_with_access(
    minio: FakeMinio, admin: Admin, user: AccessKey, completed: int
) -> None:
    for old_user in (USER, NEXT_USER):
        await ensure(admin, ownership("uid-1"), old_user)
    minio.fails_at = minio.writes + completed + 1
    adopting = ownership("uid-2", adopts=True)
    try:
        await ensure(admin, adopting, user)
    except TransientError:
        assert not (minio.has_access(NEXT_USER) and NEXT_NAME in minio.policies)
    minio.fails_at = 0
    await ensure(admin, adopting, user)
    assert minio.users[user.id] == NEXT_NAME
    assert not minio.has_access(NEXT_USER)
    assert minio.has_access(user)


async def test_adoption_does_not_touch_other_servers(minio: FakeMinio, admin: Admin) -> None:
    """A policy of the same name for other objects can be that of a server in another cluster."""
    await ensure(admin, ownership("uid-1"), USER, OTHER_POLICY)
    await ensure(admin, ownership("uid-2", adopts=True), NEXT_USER)
    assert minio.has_access(USER)
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-3", adopts=True), USER)
    assert error.value.reason is Reason.NAME_CONFLICT
    assert minio.has_access(USER)


async def test_policy_is_not_revoked_for_an_adoption_that_is_refused(minio: FakeMinio, admin: Admin) -> None:
    await ensure(admin, ownership("uid-1"))
    minio.policies["mlflow-operator.team-b.tracking.uid-9"] = POLICY
    with pytest.raises(ConfigurationError, match="overlap"):
        await ensure(admin, ownership("uid-2", adopts=True), NEXT_USER)
    assert minio.has_access(USER)


async def test_policy_of_the_same_server_with_its_own_administrator_is_not_taken_over(admin: Admin) -> None:
    """Its ID says nothing about the namespace."""
    await ensure(admin, None)
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-1"))
    assert error.value.reason is Reason.ADOPTION_REQUIRED


@pytest.mark.parametrize("policy", [POLICY, OTHER_POLICY], ids=["same prefix", "other prefix"])
@pytest.mark.parametrize("completed", range(7))
async def test_running_server_that_begins_to_use_a_platform_keeps_its_access(
    minio: FakeMinio, admin: Admin, completed: int, policy: Object
) -> None:
    """Also if the change is interrupted, or made during a rotation, whose previous user can still be deleted."""
    for user in (USER, NEXT_USER):
        await ensure(admin, None, user, policy)
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-1"))
    assert error.value.reason is Reason.ADOPTION_REQUIRED
    minio.fails_at = minio.writes + completed + 1
    adopting = ownership("uid-1", adopts=True)
    with contextlib.suppress(TransientError):
        await ensure(admin, adopting)
    assert minio.has_access(USER)
    minio.fails_at = 0
    await ensure(admin, adopting)
    assert minio.users[USER.id] == NAME
    assert minio.removed == []
    await MinioAdmin(SignedRequests()).delete_user(admin, NEXT_USER.id, NAME)
    assert minio.users == {USER.id: NAME}
    writes = minio.writes
    await ensure(admin, ownership("uid-1"))
    assert minio.writes == writes


async def test_overlapping_policy_is_refused_on_a_platform(minio: FakeMinio, admin: Admin) -> None:
    minio.policies["mlflow-operator.team-b.tracking"] = POLICY
    with pytest.raises(ConfigurationError, match="overlap"):
        await ensure(admin, ownership("uid-1"))
    assert NAME not in minio.policies


class Foreign(FakeMinio):
    """A store with a user of an administrator, whose secret the server does not have."""

    def __init__(self, policies: str, groups: list[str]) -> None:
        super().__init__()
        self.users = {USER.id: policies}
        self.groups, self.commands = groups, list[str]()

    async def respond(self, request: web.Request) -> web.Response:
        """Respond to a request."""
        command = request.path.rpartition("/")[2]
        if f"Credential={USER.id}/" in request.headers["Authorization"]:
            return web.Response(status=403, text='{"Code": "SignatureDoesNotMatch"}')
        if request.method != "GET":
            self.commands.append(command)
        if command == "user-info":
            return web.json_response({"policyName": self.users[USER.id], "memberOf": self.groups})
        return await super().respond(request)


@pytest.mark.parametrize(
    ("policies", "groups"),
    [("", []), ("", ["admins"]), (NAME, ["admins"]), ("velero", []), ("velero", ["admins"])],
)
async def test_user_of_an_administrator_is_not_taken_over(
    start_server: StartServer, policies: str, groups: list[str]
) -> None:
    """A tenant can write any name into the Secret, also one that an administrator uses later."""
    store = Foreign(policies, groups)
    admin = Admin(await start_server(store.respond), AccessKey("root", "root-secret"), None, "the Secret")
    with pytest.raises(ConfigurationError, match="was not created for this server"):
        await ensure(admin, ownership("uid-1"))
    assert store.commands == []


async def test_other_policies_are_removed_before_the_secret_is_set(start_server: StartServer) -> None:
    """Otherwise the server's secret would have their permissions for a moment."""
    store = Foreign(f"{NAME},velero", [])
    admin = Admin(await start_server(store.respond), AccessKey("root", "root-secret"), None, "the Secret")
    await ensure(admin, ownership("uid-1"))
    assert store.commands == ["add-canned-policy", "set-user-or-group-policy", "add-user"]
