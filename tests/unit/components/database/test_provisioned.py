"""A database on a shared Postgres, in states that are hard to reach with a real server."""

from typing import Any

import pytest

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import (
    DATABASE_UNREACHABLE,
    NAME,
    NAMESPACE,
    FakePostgres,
    FakePostgresAdmin,
    SimulatedCluster,
)

ADMIN: Object = {"name": "admin"}
SPEC: Object = {"database": {"provision": {"host": "shared", "adminSecretRef": ADMIN}}}
DERIVED_NAME = provisioning.derived_name(ServerRef(NAME, NAMESPACE, ""))


class SharedPostgres(FakePostgres):
    """The provisioned database of a shared Postgres, which only the provisioned logins can connect to."""

    def __init__(self, admin: FakePostgresAdmin) -> None:
        super().__init__()
        self.admin = admin
        self.login_limit: int | None = None
        """Connection limit of the login, if it differs from the plan."""

    async def inspect(
        self,
        connection: Connection,
        ca_path: str | None,
        field: str,
        expected_revision: str | None = None,
        *,
        administrator: str | None = None,
    ) -> DatabaseState:
        """Behave like the client."""
        if self.error:
            raise self.error
        plan = self.admin.database
        if self.admin.logins.get(connection.username) != connection.password or plan is None:
            raise from_psycopg(
                Exception("password authentication failed"), "shared:5432", "spec.database.provision"
            )
        limit = plan.connection_limit
        login_limit = limit if self.login_limit is None else self.login_limit
        return DatabaseState(
            *("UTF8", self.revision, "shared#1", None, plan.role, limit, plan.marker),
            login_connection_limit=login_limit,
        )


@pytest.fixture
def postgres() -> FakePostgresAdmin:
    """A Postgres server without databases."""
    return FakePostgresAdmin()


@pytest.fixture
def simulation(postgres: FakePostgresAdmin) -> SimulatedCluster:
    """A server with `database.provision` on that Postgres, and the administrator's Secret."""
    simulation = SimulatedCluster(SPEC)
    simulation.postgres, simulation.postgres_admin = SharedPostgres(postgres), postgres
    simulation.put_secret("admin", username="admin", password=postgres.password)
    return simulation


async def test_database_role_and_secret_are_created(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """The server gets the login and no credentials of the administrator. An unchanged server needs no administrator."""
    values = ready_server.secret("a-database")
    assert values["username"] == provisioning.logins(DERIVED_NAME)[0]
    assert (values["host"], values["port"], values["dbname"]) == ("shared", "5432", DERIVED_NAME)
    assert postgres.logins == {values["username"]: values["password"]}
    uri = ready_server.secret("a-server")["backend-store-uri"]
    assert uri.startswith(values["uri"].partition("?")[0])
    assert values["password"] in uri
    assert postgres.password not in uri
    resource = ready_server.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["database"] == {
        "type": "Provision",
        "host": "shared",
        "port": 5432,
        "name": DERIVED_NAME,
    }
    await ready_server.reconcile()
    assert postgres.attempts == 1


async def test_administrator_secret_can_be_deleted_after_provisioning(ready_server: SimulatedCluster) -> None:
    """It is needed only for changes; if it is missing then, the server keeps running."""
    del ready_server.api.objects["Secret", "admin"]
    await ready_server.reconcile()
    assert ready_server.condition("Ready")[0] == "True"
    ready_server.update_spec(replicas=3)
    await ready_server.reconcile_until_stable()
    status, _, message = ready_server.condition("DatabaseReady")
    assert status == "True"
    assert 'differs from the spec: There is no Secret "admin"' in message


async def test_login_without_connection_limit_gets_one(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """Logins of earlier versions of the operator have none, and the owner of a database can lift the limit of it."""
    database = ready_server.postgres
    assert isinstance(database, SharedPostgres)
    attempts = postgres.attempts
    await ready_server.reconcile()
    assert postgres.attempts == attempts
    database.login_limit = -1
    await ready_server.reconcile()
    assert postgres.attempts == attempts + 1


async def test_connection_limit_follows_replicas(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """The connection limit of the database grows with spec.replicas."""
    assert postgres.database
    before = postgres.database.connection_limit
    ready_server.update_spec(replicas=3)
    await ready_server.reconcile_until_stable()
    assert postgres.database.connection_limit == 2 * (before - 5) + 5


@pytest.mark.parametrize("setting", ["replicas", "workers"])
async def test_lower_connection_limit_waits_for_the_rollout(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin, setting: str
) -> None:
    """The previous pods keep their connections, and new pods would get none: the rollout would never end."""
    ready_server.update_spec(**{setting: 4})
    await ready_server.reconcile_until_ready()
    assert postgres.database
    before = postgres.database.connection_limit
    ready_server.update_spec(**{setting: 1})
    await ready_server.reconcile()
    assert postgres.database.connection_limit == before
    previous_pods_run = {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
    ready_server.api.edit("Deployment", NAME, lambda live: live["status"].update(previous_pods_run))
    await ready_server.reconcile()
    assert postgres.database.connection_limit == before
    assert ready_server.condition("DatabaseReady")[0] == "True"
    await ready_server.reconcile_until_stable()
    assert postgres.database.connection_limit < before


async def test_database_that_must_be_repaired_gets_its_lower_limit_at_once(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    ready_server.update_spec(replicas=4)
    await ready_server.reconcile_until_ready()
    assert postgres.database
    before, attempts = postgres.database.connection_limit, postgres.attempts
    database = ready_server.postgres
    assert isinstance(database, SharedPostgres)
    database.login_limit = -1
    ready_server.update_spec(replicas=1)
    await ready_server.reconcile()
    assert postgres.attempts == attempts + 1
    assert postgres.database.connection_limit < before


async def test_lost_secret_is_recreated(ready_server: SimulatedCluster, postgres: FakePostgresAdmin) -> None:
    """A new password is set for the same database."""
    before = ready_server.secret("a-database")
    del ready_server.api.objects["Secret", "a-database"]
    await ready_server.reconcile_until_ready()
    after = ready_server.secret("a-database")
    assert after["password"] != before["password"]
    assert postgres.logins[after["username"]] == after["password"]


async def test_missing_secret_key_is_reported_and_not_generated(ready_server: SimulatedCluster) -> None:
    """A user may have removed it on purpose."""
    ready_server.api.edit("Secret", "a-database", lambda live: live["data"].pop("password"))
    await ready_server.reconcile()
    _, reason, message = ready_server.condition("CredentialsReady")
    assert reason == "SecretKeyMissing"
    assert "delete the whole Secret" in message


async def test_password_changed_in_postgres_is_reset(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """The Secret is authoritative."""
    login = ready_server.secret("a-database")
    postgres.logins[login["username"]] = "changed manually"
    await ready_server.reconcile()
    assert postgres.logins[login["username"]] == login["password"]
    assert ready_server.condition("Ready")[0] == "True"


async def test_lost_database_is_recreated_only_after_its_secret_is_deleted(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """Deleting the Secret means that the user wants to start with an empty database."""
    postgres.database = None
    await ready_server.reconcile()
    _, reason, message = ready_server.condition("DatabaseReady")
    assert reason == "DatabaseLost"
    assert 'To start with an empty database, delete Secret "a-database"' in message
    assert postgres.database is None
    del ready_server.api.objects["Secret", "a-database"]
    await ready_server.reconcile()
    assert postgres.database is not None


async def test_unreachable_database_is_not_provisioned_again(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """Nothing is created, and the administrator's login is not used."""
    ready_server.postgres.error = DATABASE_UNREACHABLE
    await ready_server.reconcile()
    assert ready_server.condition("DatabaseReady")[1] == "DatabaseUnreachable"
    assert postgres.attempts == 1


async def test_new_administrator_password_is_used(
    simulation: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """A user changed it first in Postgres and then in the Secret."""
    postgres.password = "another"
    await simulation.reconcile()
    _, reason, message = simulation.condition("DatabaseReady")
    assert reason == "DatabaseAuthenticationFailed"
    assert "spec.database.provision.adminSecretRef" in message
    simulation.put_secret("admin", username="admin", password="another\n")
    await simulation.reconcile()
    assert "Write it with printf" in simulation.condition("DatabaseReady")[2]
    simulation.put_secret("admin", username="admin", password="another")
    await simulation.reconcile_until_ready()


async def test_missing_administrator_secret_names_the_way_to_use_one_of_another_namespace(
    simulation: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """Earlier versions read it there. The API server has dropped the field that named the namespace."""
    simulation.api.edit("Secret", "admin", lambda live: live["metadata"].update(namespace="platform"))
    await simulation.reconcile()
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", "SecretNotFound")
    assert f'"admin" in namespace {NAMESPACE}' in message
    assert "spec.database.provision.adminSecretRef" in message
    assert "MLflowPlatform" in message
    assert postgres.attempts == 0


async def test_missing_administrator_secret_does_not_stop_a_running_server(
    ready_server: SimulatedCluster,
) -> None:
    """The Secret is only read if something must be written."""
    del ready_server.api.objects["Secret", "admin"]
    await ready_server.reconcile_until_ready()
    ready_server.update_spec(replicas=2)
    await ready_server.reconcile_until_ready()
    assert "MLflowPlatform" in ready_server.condition("DatabaseReady")[2]


@pytest.mark.parametrize("readable", [True, False])
async def test_marker_contains_the_cluster_uid_if_it_can_be_read(
    simulation: SimulatedCluster, postgres: FakePostgresAdmin, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """Two clusters that share a Postgres server may have MLflowServers with the same name."""
    get = simulation.api.get

    async def get_namespace(
        kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        if kind == kinds.NAMESPACE:
            if not readable:
                raise Forbidden("get Namespace kube-system: 403")
            return {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
        return await get(kind, namespace, name, limit)

    monkeypatch.setattr(simulation.api, "get", get_namespace)
    await simulation.reconcile_until_ready()
    assert postgres.database
    assert postgres.database.marker.endswith("uid-of-kube-system" if readable else "team/a")


async def test_cluster_uid_is_read_once_per_process(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while the operator may not read it: the permission can be granted later."""
    deps, get, readable = simulation.dependencies(), simulation.api.get, False

    async def get_namespace(
        kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        found = await get(kind, namespace, name, limit)
        if kind == kinds.NAMESPACE and not readable:
            raise Forbidden("get Namespace kube-system: 403")
        return {"metadata": {"name": name, "uid": "u"}} if kind == kinds.NAMESPACE else found

    monkeypatch.setattr(simulation.api, "get", get_namespace)
    requests = []
    for replicas in range(1, 6):
        readable = replicas > 2
        simulation.update_spec(replicas=replicas)  # changes the connection limit of the role
        await simulation.reconcile(deps)
        requests.append(simulation.api.reads.count("Namespace/kube-system"))
    assert requests == [1, 2, 3, 3, 3]


async def test_password_of_the_embedded_database_is_never_lost(
    postgres: FakePostgresAdmin,
) -> None:
    """The server switches to a shared Postgres and back.

    The volume of its embedded database remains, and only this password gives access to the data in it.
    """

    class EmbeddedAndSharedPostgres(SharedPostgres):
        async def inspect(self, connection: Connection, *args: Any, **kwargs: Any) -> DatabaseState:
            if connection.host == "shared":
                return await super().inspect(connection, *args, **kwargs)
            return await FakePostgres.inspect(self, connection, *args, **kwargs)

    simulation = SimulatedCluster()
    simulation.postgres, simulation.postgres_admin = EmbeddedAndSharedPostgres(postgres), postgres
    await simulation.reconcile_until_ready()
    before = simulation.secret("a-database")
    simulation.put_secret("admin", username="admin", password=postgres.password)
    simulation.update_spec(**SPEC, storageChangePolicy="Allow")
    await simulation.reconcile_until_ready()
    while_provisioned = simulation.secret("a-database")
    assert while_provisioned["host"] == "shared"
    assert postgres.logins == {while_provisioned["username"]: while_provisioned["password"]}
    assert while_provisioned["embeddedPassword"] == before["password"]
    simulation.update_spec(database={"embedded": {}})
    await simulation.reconcile_until_ready()
    after = simulation.secret("a-database")
    assert {key: after[key] for key in before} == before


async def test_secret_is_unchanged_if_the_storage_change_is_not_allowed() -> None:
    """The CRD rejects this change, but a resource may be older than the rule."""
    simulation = SimulatedCluster()
    await simulation.reconcile_until_ready()
    before = simulation.secret("a-database")
    simulation.update_spec(**SPEC)
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "StorageChangeRefused"
    assert simulation.secret("a-database") == before


async def test_secret_follows_the_spec(ready_server: SimulatedCluster, postgres: FakePostgresAdmin) -> None:
    """On another Postgres server the same password is used; unknown keys in the Secret are kept."""
    password = ready_server.secret("a-database")["password"]
    ready_server.api.edit("Secret", "a-database", lambda live: live["data"].update(more="bW9yZQ=="))
    provision = {"host": "other", "adminSecretRef": ADMIN, "roleName": "mine"}
    ready_server.update_spec(database={"provision": provision}, storageChangePolicy="Allow")
    await ready_server.reconcile()
    values = ready_server.secret("a-database")
    assert (values["host"], values["username"], values["password"]) == ("other", "mine_a", password)
    assert values["uri"].startswith("postgresql+psycopg2://mine_a:")
    assert values["more"] == "more"


async def test_rotation_switches_to_the_other_login(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """The previous login is revoked once no pod uses it. Afterwards the administrator's login is not used any more."""
    old = ready_server.secret("a-database")
    ready_server.update_spec(rotateCredentialsAt="2026-01-01T00:00:00Z")
    await ready_server.reconcile_until_ready()
    new = ready_server.secret("a-database")
    assert [old["username"], new["username"]] == [*provisioning.logins(DERIVED_NAME)]
    assert postgres.logins == {new["username"]: new["password"]}
    assert new["uri"] == old["uri"].replace(
        f"{old['username']}:{old['password']}@", f"{new['username']}:{new['password']}@"
    )
    before = [*ready_server.api.writes]
    await ready_server.reconcile()
    assert ready_server.api.writes == before
    assert postgres.attempts == 1


async def delete_and_check_gone(simulation: SimulatedCluster) -> bool:
    """Delete the server and its data. Returns whether it is gone after the necessary reconciles."""
    simulation.update_spec(deletionPolicy="Delete")
    await simulation.reconcile()
    simulation.delete_server()
    for _ in range(5):
        await simulation.reconcile()
        simulation.run_controllers()
        if simulation.get("MLflowServer", NAME) is None:
            return True
    return False


async def test_deletion_removes_database_and_roles_and_then_the_secret(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    assert await delete_and_check_gone(ready_server)
    assert postgres.database is None
    assert postgres.logins == {}
    assert ready_server.get("Secret", "a-database") is None
    assert ready_server.get("Secret", "admin")


async def test_unreachable_postgres_blocks_the_deletion(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """The password is kept as long as the data, and a user can end the deletion."""
    postgres.error = DATABASE_UNREACHABLE
    assert not await delete_and_check_gone(ready_server)
    _, reason, message = ready_server.condition("Ready")
    assert reason == "DeletionBlocked"
    assert message.startswith("The database does not answer.")
    assert ready_server.get("Secret", "a-database")
    annotations = {labels.SKIP_DATA_DELETION: "true"}
    ready_server.api.edit("MLflowServer", NAME, lambda live: live["metadata"].update(annotations=annotations))
    await ready_server.reconcile()
    assert ready_server.get("MLflowServer", NAME) is None
    message = ready_server.events.published[-1][2]
    assert f"the database shared:5432/{DERIVED_NAME}" in message
    assert '"a-database"' in message


async def test_database_of_another_owner_is_kept_and_does_not_block_the_deletion(
    ready_server: SimulatedCluster, postgres: FakePostgresAdmin
) -> None:
    """It lost the operator's comment, or the name was reused after the database was dropped manually."""
    postgres.error = ConfigurationError(Reason.NAME_CONFLICT, "It belongs to another owner.")
    assert await delete_and_check_gone(ready_server)
    assert postgres.database
    assert (
        f'does not belong to this server: the database "{DERIVED_NAME}"'
        in ready_server.events.published[-1][2]
    )
