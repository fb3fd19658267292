"""An MLflowServer on a platform with a real Postgres: its database, and whose it is if a namespace is recreated."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.kube import kinds
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server, external_spec
from tests.integration.test_platform import Platform
from tests.polling import eventually

# A store that the operator does not check: the tests have no MinIO.
EXTERNAL_STORE = {"artifacts": {"external": {"uri": "gs://bucket"}}}
SOON_SECONDS = 10.0
"""Earlier than the retry of a refusal (15 s) and the resync (60 s)."""


def create_namespace(admin: Client, name: str, labels: dict[str, str]) -> None:
    """Create a namespace."""
    admin.apply(
        kinds.NAMESPACE,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    )


@pytest.fixture
def tenant(admin: Client) -> Iterator[tuple[str, dict[str, str]]]:
    """A namespace, and a label that only this namespace has."""
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    labels = {"example.com/tenant": name}
    create_namespace(admin, name, labels)
    yield name, labels
    admin.delete(kinds.NAMESPACE, None, name)


@pytest.fixture
def platform(
    admin: Client, namespace: str, postgres: Postgres, tenant: tuple[str, dict[str, str]]
) -> Iterator[Platform]:
    """The default platform of the namespace."""
    created = Platform(admin, namespace, postgres)
    created.put_secret()
    created.apply(tenant[1], is_default=True)
    yield created
    created.delete()


def test_namespace_that_is_recreated_gets_its_database_only_with_an_adoption(
    operator: Operator,
    admin: Client,
    platform: Platform,
    postgres: Postgres,
    tenant: tuple[str, dict[str, str]],
) -> None:
    """The Secrets of the platform are in another namespace."""
    name, labels = tenant
    server = Server(admin, name).apply(EXTERNAL_STORE)
    server.wait_for("DatabaseReady")
    database = f"mlflow_{name}_tracking"
    assert database in postgres.databases()
    assert server.status["platform"]["name"] == platform.name
    assert server.status["platform"]["parts"] == ["Database"]
    server.delete()
    eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, "tracking") is None)
    admin.delete(kinds.NAMESPACE, None, name)
    eventually("the namespace is gone", lambda: admin.get(kinds.NAMESPACE, None, name) is None)
    create_namespace(admin, name, labels)
    server.apply(EXTERNAL_STORE).wait_for("DatabaseReady", "False", "AdoptionRequired")
    adoptions = {"spec": {"adoptions": [f"{name}/tracking"]}}
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, adoptions)
    server.wait_for("DatabaseReady")
    namespace = admin.need(kinds.NAMESPACE, None, name)
    used = [{"server": f"{name}/tracking", "namespaceUID": namespace["metadata"]["uid"]}]
    assert platform.status["adoptions"] == used
    assert ("Normal", "AdoptionUsed") in platform.events()
    platform.trigger_reconcile()
    platform.wait_for("True", "Ready")
    assert platform.status["adoptions"] == used
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, {"spec": {"adoptions": []}})
    eventually("the entry is forgotten", lambda: "adoptions" not in platform.status)
    server.trigger_reconcile()
    server.wait_for("DatabaseReady")
    server.merge(kinds.MLFLOWSERVER, "tracking", {"spec": {"deletionPolicy": "Delete"}})
    eventually("the finalizer is added", lambda: server.resource()["metadata"].get("finalizers"))
    server.delete()
    eventually("its database is deleted", lambda: database not in postgres.databases())
    eventually("its roles are deleted", lambda: not {r for r in postgres.roles() if database in r})


def test_changed_platform_reaches_its_servers_before_their_resync(
    operator: Operator,
    admin: Client,
    platform: Platform,
    postgres: Postgres,
    tenant: tuple[str, dict[str, str]],
) -> None:
    """There is one Event about the refusal, although it is retried, and the other conditions stay."""
    name, labels = tenant
    # With stores of its own it becomes Ready in this cluster, and is not reconciled any more.
    spec = external_spec(admin, name, postgres, platformRef={"name": platform.name})
    server = Server(admin, name).apply(spec)
    server.wait_for("Ready")
    platform.apply({"example.com/tenant": "another"}, is_default=True)
    server.wait_for("Ready", "False", "PlatformNotAllowed", seconds=SOON_SECONDS)
    assert server.conditions()["DatabaseReady"]["status"] == "True"
    platform.apply(labels, is_default=True)
    server.wait_for("Ready", seconds=SOON_SECONDS)
    assert len(server.events("PlatformNotAllowed")) == 1
    server.delete()


def test_limits_and_defaults_of_a_platform(
    operator: Operator, admin: Client, platform: Platform, tenant: tuple[str, dict[str, str]]
) -> None:
    """A violation creates nothing and has one Event. Defaults are taken once."""
    name, _ = tenant
    labels = {"example.com/cost-center": "42"}
    default_images = ["ghcr.io/mlflow", "docker.io/library"]
    policy = {"images": ["registry.example.com/ml", *default_images], "serversPerNamespace": 1}
    defaults = {"podMetadata": {"labels": labels}, "backup": {"s3": {"bucket": "backups"}}}
    limits = {"spec": {"policy": policy, "serverDefaults": defaults}}
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, limits)
    image = "registry.example.com/ml-evil/mlflow"
    server = Server(admin, name).apply({**EXTERNAL_STORE, "image": image, "service": {"type": "NodePort"}})
    message = server.wait_for("Ready", "False", "PolicyViolation")["message"]
    assert f'MLflowPlatform "{platform.name}": spec.image is {image}' in message
    assert "spec.service.type is NodePort" in message
    server.trigger_reconcile()
    other = Server(admin, name, "z-second").apply(EXTERNAL_STORE)
    assert "serversPerNamespace is 1" in other.wait_for("Ready", "False", "PolicyViolation")["message"]
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.JOB, kinds.PVC):
        assert server.objects(kind) == []
    reasons = [event["reason"] for event in server.objects(kinds.EVENT)]
    assert reasons == ["PolicyViolation", "PolicyViolation"]
    server.patch_spec(image=None, service=None)
    server.wait_for("DatabaseReady")
    taken = server.status["platformDefaults"]
    assert taken["podMetadata"] == {"labels": labels}
    assert taken["backup"]["s3"]["bucket"] == "backups"
    eventually("the schema is migrated", lambda: server.objects(kinds.JOB))
    assert labels.items() <= server.objects(kinds.JOB)[0]["spec"]["template"]["metadata"]["labels"].items()
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, {"spec": {"serverDefaults": None}})
    server.trigger_reconcile()
    server.wait_for("DatabaseReady")
    assert server.status["platformDefaults"] == taken
    server.delete()
    eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, "tracking") is None)
    other.wait_for("DatabaseReady")


ADMINISTRATOR = "administrator"
"""A role with only CREATEROLE and CREATEDB."""


async def connect(postgres: Postgres, database: str, user: str) -> psycopg.AsyncConnection:
    """Open a session as a user, whose password this Postgres does not check."""
    return await psycopg.AsyncConnection.connect(
        host="127.0.0.1", port=postgres.port, dbname=database, user=user
    )


async def test_running_server_keeps_its_sessions_when_it_begins_to_use_a_platform(postgres: Postgres) -> None:
    """Also those of the previous login during a rotation. Without a database in use, they end as in an adoption."""
    client = PostgresAdmin(Sessions())
    admin = Connection("127.0.0.1", postgres.port, "postgres", "postgres", "x")
    owner = ServerRef("tracking", f"owner-{uuid.uuid4().hex[:8]}", "")
    name = provisioning.derived_name(owner)
    before = DatabasePlan(name, name, 20, provisioning.marker(owner, "cluster"))
    marker = provisioning.marker(owner, "cluster", "uid-1")
    after = DatabasePlan(name, name, 20, marker, "shared", adopts=True)
    logins = [Login(login, "password") for login in before.logins]
    for in_use in (True, False):
        await client.provision(admin, None, before, logins[0], "field")
        await client.ensure_login(admin, None, before, logins[1], "field")
        sessions = [await connect(postgres, name, login.name) for login in logins]
        await client.provision(admin, None, after, logins[0], "field", create=not in_use)
        for session in sessions:
            async with session:
                if in_use:
                    await session.execute("SELECT 1")
                    continue
                with pytest.raises(psycopg.OperationalError):
                    await session.execute("SELECT 1")
        await client.deprovision(admin, None, after, "field")


async def test_roles_and_database_belong_to_one_namespace(postgres: Postgres) -> None:
    """A later server of the same name gets neither, and deletes neither.

    If it adopts them, both logins of the earlier server end, with their sessions.
    """
    client, admin = (
        PostgresAdmin(Sessions()),
        Connection("127.0.0.1", postgres.port, "postgres", ADMINISTRATOR, "x"),
    )
    async with await connect(postgres, "postgres", "postgres") as superuser:
        await superuser.execute(f"CREATE ROLE {ADMINISTRATOR} LOGIN CREATEROLE CREATEDB")
    owner = ServerRef("tracking", f"owner-{uuid.uuid4().hex[:8]}", "")
    name = provisioning.derived_name(owner)

    def plan(namespace_uid: str, *, adopts: bool = False) -> DatabasePlan:
        marker = provisioning.marker(owner, "cluster", namespace_uid)
        return DatabasePlan(name, name, 20, marker, "shared", adopts=adopts)

    async def provision(desired: DatabasePlan) -> None:
        await client.provision(admin, None, desired, Login(desired.logins[0], "password"), "field")

    await provision(plan("uid-1"))
    for refused in (provision(plan("uid-2")), client.deprovision(admin, None, plan("uid-2"), "field")):
        with pytest.raises(ConfigurationError, match=r"spec\.adoptions") as error:
            await refused
        assert error.value.reason is Reason.ADOPTION_REQUIRED
    rotated = Login(plan("").logins[1], "rotated")
    await client.ensure_login(admin, None, plan("uid-1"), rotated, "field")
    sessions = [await connect(postgres, name, login) for login in plan("").logins]
    await provision(plan("uid-2", adopts=True))
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        await connect(postgres, name, rotated.name)
    async with await connect(postgres, name, plan("").logins[0]) as session:
        # The sessions of the new server are not terminated.
        await provision(plan("uid-2", adopts=True))
        await session.execute("SELECT 1")
    await provision(plan("uid-2"))
    with pytest.raises(ConfigurationError):
        await provision(plan("uid-1"))
    await client.deprovision(admin, None, plan("uid-2"), "field")
    assert name not in postgres.databases()
