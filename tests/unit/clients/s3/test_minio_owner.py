"""The owner of a policy on a platform, against a fake admin API that keeps users and policies."""

import json
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
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.clients.s3.conftest import StartServer

OWNER = ServerRef("tracking", "team-a", "")
NAME = bucket_policy.name(OWNER)
USER, NEXT_USER = AccessKey("FIRSTKEY", "secret-1"), AccessKey("SECONDKEY", "secret-2")
POLICY: Object = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Resource": ["arn:aws:s3:::a/b/*"]}],
}
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

    async def respond(self, request: web.Request) -> web.Response:
        """Respond to a request."""
        command, query = request.path.rpartition("/")[2], request.query
        signed_by = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        if signed_by not in {"root", *self.users}:
            return web.Response(status=403, text='{"Code": "InvalidAccessKeyId"}')
        if request.method == "GET":
            return self._read(command, query.get("accessKey") or query.get("name") or "")
        self.writes += 1
        match command:
            case "add-canned-policy":
                self.policies[query["name"]] = json.loads(await request.text())
            case "add-user":
                self.users[query["accessKey"]] = ""
            case "set-user-or-group-policy":
                self.users[query["userOrGroup"]] = query["policyName"]
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
    """Create or update the user of the server."""
    await MinioAdmin(SignedRequests()).ensure_user(admin, user, NAME, policy or POLICY, owner)


async def test_policy_names_its_owner_and_is_not_written_again(minio: FakeMinio, admin: Admin) -> None:
    await ensure(admin, ownership("uid-1"))
    assert minio.policies[NAME]["ID"] == "mlflow-operator.dev: team-a/tracking in namespace uid-1"
    writes = minio.writes
    await ensure(admin, ownership("uid-1"))
    assert minio.writes == writes


@pytest.mark.parametrize("user", [USER, NEXT_USER], ids=["user of the deleted namespace", "new user"])
@pytest.mark.parametrize("policy", [POLICY, OTHER_POLICY], ids=["same prefix", "other prefix"])
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


async def test_adopted_policy_gets_the_new_owner(minio: FakeMinio, admin: Admin) -> None:
    await ensure(admin, ownership("uid-1"))
    await ensure(admin, ownership("uid-2", adopts=True), NEXT_USER)
    assert minio.policies[NAME]["ID"].endswith("uid-2")
    await ensure(admin, ownership("uid-2"), NEXT_USER)
    with pytest.raises(ConfigurationError):
        await ensure(admin, ownership("uid-1"))


async def test_policy_of_the_same_server_with_its_own_administrator_is_not_taken_over(admin: Admin) -> None:
    """Its ID says nothing about the namespace."""
    await ensure(admin, None)
    with pytest.raises(ConfigurationError) as error:
        await ensure(admin, ownership("uid-1"))
    assert error.value.reason is Reason.ADOPTION_REQUIRED


async def test_overlapping_policy_is_refused_on_a_platform(minio: FakeMinio, admin: Admin) -> None:
    minio.policies["mlflow-operator.team-b.tracking"] = POLICY
    with pytest.raises(ConfigurationError, match="overlap"):
        await ensure(admin, ownership("uid-1"))
    assert NAME not in minio.policies
