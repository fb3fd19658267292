"""A database on a shared Postgres, in the moments that a real one can't be stopped at."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mlflow_operator.clients.postgres import admin as postgres_admin
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.database import reconcile as database
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.unit.simulation import DOWN, NAME, NAMESPACE, World

ADMIN: Object = {"name": "admin"}
SPEC: Object = {"database": {"provision": {"host": "shared", "adminSecretRef": ADMIN}}}
DERIVED = provisioning.derived_name(ServerRef(NAME, NAMESPACE, ""))


@dataclass
class Postgres:
    """A Postgres: who may log in, and what was made for whom. `attempts`: how often the administrator was asked."""

    password: str = "admin-password"
    logins: dict[str, str] = field(default_factory=dict)
    made: DatabasePlan | None = None
    fault: ReconcileError | None = None
    attempts: int = 0

    async def provision(
        self,
        admin: Connection,
        ca_path: str | None,
        plan: DatabasePlan,
        login: Login,
        where: str,
        *,
        anew: bool,
    ) -> None:
        """As the provider does."""
        self.attempts += 1
        if admin.password != self.password:
            raise from_psycopg(
                Exception("password authentication failed"), "shared:5432", f"{where}.adminSecretRef"
            )
        if self.fault:
            raise self.fault
        if self.made is None and not anew:
            raise ConfigurationError(Reason.DATABASE_LOST, f'The database "{plan.database}" is gone.')
        self.made = plan
        self.logins[login.name] = login.password

    async def ensure_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, login: Login, where: str
    ) -> None:
        """As the provider does."""
        assert admin.password == self.password
        self.logins[login.name] = login.password

    async def delete_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, name: str, where: str
    ) -> None:
        """As the provider does."""
        assert admin.password == self.password
        self.logins.pop(name, None)

    async def drop(self, admin: Connection, ca_path: str | None, plan: DatabasePlan, where: str) -> None:
        """As the provider does."""
        if self.fault:
            raise self.fault
        assert self.made is None or plan.role == self.made.role
        self.made = None
        self.logins.clear()

    async def inspect(self, connection: Connection, *_: object) -> DatabaseState:
        """As the provider does."""
        if self.logins.get(connection.username) != connection.password or self.made is None:
            raise from_psycopg(Exception("password authentication failed"), "shared:5432", provisioned.FIELD)
        plan = self.made
        limit = plan.connection_limit
        return DatabaseState("UTF8", None, "shared#1", None, plan.role, limit, plan.marker)


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """Empty."""
    made = Postgres()
    for name in ("provision", "ensure_login", "delete_login", "drop"):
        monkeypatch.setattr(postgres_admin, name, getattr(made, name))
    return made


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> World:
    """A server that wants a database there, with an administrator's Secret beside it."""
    world = World(monkeypatch, SPEC)

    async def inspect(*asked: Any) -> DatabaseState:
        return replace(await postgres.inspect(*asked), revision=world.revision)

    monkeypatch.setattr(database, "inspect", inspect)
    world.put_secret("admin", username="admin", password=postgres.password)
    return world


async def ready(world: World) -> None:
    """Comes up."""
    await world.until_settled()
    assert world.condition("Ready")[0] == "True", world.condition("Ready")


async def test_database_role_and_secret_are_made(world: World, postgres: Postgres) -> None:
    """The server gets the login and nothing of the administrator; at rest nobody asks the latter again."""
    await ready(world)
    held = world.secret("a-database")
    assert held["username"] == provisioning.logins(DERIVED)[0]
    assert (held["host"], held["port"], held["dbname"]) == ("shared", "5432", DERIVED)
    assert postgres.logins == {held["username"]: held["password"]}
    uri = world.secret("a-server")["backend-store-uri"]
    assert uri.startswith(held["uri"].partition("?")[0])
    assert held["password"] in uri
    assert postgres.password not in uri
    resource = world.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["database"] == {
        "type": "Provision",
        "host": "shared",
        "port": 5432,
        "name": DERIVED,
    }
    await world.reconcile()
    assert postgres.attempts == 1


async def test_the_administrators_secret_may_go_once_all_is_made(world: World) -> None:
    """It is needed again only when something is to be made or changed, and even then the server runs on."""
    await ready(world)
    del world.api.objects["Secret", "admin"]
    await world.reconcile()
    assert world.condition("Ready")[0] == "True"
    world.change(replicas=3)
    await world.until_settled()
    status, _, message = world.condition("DatabaseReady")
    assert status == "True"
    assert 'not as planned: There is no Secret "admin"' in message


async def test_more_pods_get_more_connections(world: World, postgres: Postgres) -> None:
    """The limit follows the spec."""
    await ready(world)
    assert postgres.made
    before = postgres.made.connection_limit
    world.change(replicas=3)
    await world.until_settled()
    assert postgres.made.connection_limit == 2 * (before - 5) + 5


async def test_a_lost_secret_is_no_harm(world: World, postgres: Postgres) -> None:
    """Another password is set for the same database."""
    await ready(world)
    before = world.secret("a-database")
    del world.api.objects["Secret", "a-database"]
    await ready(world)
    after = world.secret("a-database")
    assert after["password"] != before["password"]
    assert postgres.logins[after["username"]] == after["password"]


async def test_a_lost_key_is_told_and_not_made_up(world: World) -> None:
    """Whoever took it out meant something."""
    await ready(world)
    world.api.edit("Secret", "a-database", lambda live: live["data"].pop("password"))
    await world.reconcile()
    _, reason, message = world.condition("CredentialsReady")
    assert reason == "SecretKeyMissing"
    assert "delete the whole Secret" in message


async def test_a_password_that_was_changed_there_is_set_back(world: World, postgres: Postgres) -> None:
    """The Secret says what holds."""
    await ready(world)
    login = world.secret("a-database")
    postgres.logins[login["username"]] = "changed by hand"
    await world.reconcile()
    assert postgres.logins[login["username"]] == login["password"]
    assert world.condition("Ready")[0] == "True"


async def test_a_lost_database_stays_lost_until_somebody_means_to_start_empty(
    world: World, postgres: Postgres
) -> None:
    """By deleting the Secret."""
    await ready(world)
    postgres.made = None
    await world.reconcile()
    _, reason, message = world.condition("DatabaseReady")
    assert reason == "DatabaseLost"
    assert 'to start empty, delete Secret "a-database"' in message
    assert postgres.made is None
    del world.api.objects["Secret", "a-database"]
    await world.reconcile()
    assert postgres.made is not None


async def test_a_database_that_is_away_is_left_alone(
    world: World, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made up, and the administrator is not bothered."""
    await ready(world)

    async def away(*_: object) -> DatabaseState:
        raise DOWN

    monkeypatch.setattr(database, "inspect", away)
    await world.reconcile()
    assert world.condition("DatabaseReady")[1] == "DatabaseUnreachable"
    assert postgres.attempts == 1


async def test_an_administrators_new_password_is_used(world: World, postgres: Postgres) -> None:
    """Rotated by others, first there and then here."""
    postgres.password = "another"
    await world.reconcile()
    _, reason, message = world.condition("DatabaseReady")
    assert reason == "DatabaseAuthenticationFailed"
    assert "spec.database.provision.adminSecretRef" in message
    world.put_secret("admin", username="admin", password="another\n")
    await world.reconcile()
    assert "printf writes it without" in world.condition("DatabaseReady")[2]
    world.put_secret("admin", username="admin", password="another")
    await ready(world)


async def test_an_administrator_of_another_namespace_that_names_nobody_is_not_used(
    world: World, postgres: Postgres
) -> None:
    """And is not told from one that is not there."""
    spec = {"host": "shared", "adminSecretRef": {"name": "admin", "namespace": "platform"}}
    world.change(database={"provision": spec})
    world.api.edit("Secret", "admin", lambda live: live["metadata"].update(namespace="platform"))
    await world.reconcile()
    denied = world.condition("DatabaseReady")
    assert denied[:2] == ("False", "ProvisioningDenied")
    assert postgres.attempts == 0
    world.api.edit(
        "Secret",
        "admin",
        lambda live: live["metadata"].update(annotations={"mlflow-operator.dev/allow-namespaces": "te*"}),
    )
    await ready(world)
    assert postgres.attempts == 1


async def test_a_secret_that_the_operator_may_not_read_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the chart's value that lets it."""
    get = world.api.get

    async def limited(kind: Kind, namespace: str | None, name: str) -> Object | None:
        if namespace == "platform":
            raise Forbidden("get Secret platform/admin: 403")
        return await get(kind, namespace, name)

    monkeypatch.setattr(world.api, "get", limited)
    spec = {"host": "shared", "adminSecretRef": {"name": "admin", "namespace": "platform"}}
    world.change(database={"provision": spec})
    await world.reconcile()
    _, reason, message = world.condition("DatabaseReady")
    assert reason == "ProvisioningDenied"
    assert "chart's value adminSecrets" in message


@pytest.mark.parametrize("known", [True, False])
async def test_the_marker_names_the_cluster_where_it_may_be_asked(
    world: World, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Two clusters that share a Postgres may have servers of the same name."""
    get = world.api.get

    async def namespaces(kind: Kind, namespace: str | None, name: str) -> Object | None:
        if kind == kinds.NAMESPACE:
            if not known:
                raise Forbidden("get Namespace kube-system: 403")
            return {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
        return await get(kind, namespace, name)

    monkeypatch.setattr(world.api, "get", namespaces)
    await ready(world)
    assert postgres.made
    assert postgres.made.marker.endswith("uid-of-kube-system" if known else "team/a")


async def test_the_embedded_databases_password_is_never_lost(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    """A server that moves to a shared Postgres leaves a volume behind that only this opens; and it may come back."""
    world = World(monkeypatch)
    inspect_embedded = world.inspect

    async def inspect(connection: Connection, *more: Any) -> DatabaseState:
        looked = postgres.inspect if connection.host == "shared" else inspect_embedded
        return replace(await looked(connection, *more), revision=world.revision)

    monkeypatch.setattr(database, "inspect", inspect)
    await ready(world)
    before = world.secret("a-database")
    world.put_secret("admin", username="admin", password=postgres.password)
    world.change(**SPEC, storageChangePolicy="Allow")
    await ready(world)
    meanwhile = world.secret("a-database")
    assert meanwhile["host"] == "shared"
    assert postgres.logins == {meanwhile["username"]: meanwhile["password"]}
    assert meanwhile["embeddedPassword"] == before["password"]
    world.change(database={"embedded": {}})
    await ready(world)
    after = world.secret("a-database")
    assert {key: after[key] for key in before} == before


async def test_without_leave_to_move_the_secret_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    """The definition refuses that already; but a resource may be older than it."""
    world = World(monkeypatch)
    await ready(world)
    before = world.secret("a-database")
    world.change(**SPEC)
    await world.reconcile()
    assert world.condition("CredentialsReady")[1] == "StorageChangeRefused"
    assert world.secret("a-database") == before


async def test_what_the_secret_says_follows_the_spec(world: World, postgres: Postgres) -> None:
    """Moved to another Postgres, the same login is made there; what others keep in the Secret stays."""
    await ready(world)
    password = world.secret("a-database")["password"]
    world.api.edit("Secret", "a-database", lambda live: live["data"].update(more="bW9yZQ=="))
    moved = {"host": "other", "adminSecretRef": ADMIN, "roleName": "mine"}
    world.change(database={"provision": moved}, storageChangePolicy="Allow")
    await world.reconcile()
    held = world.secret("a-database")
    assert (held["host"], held["username"], held["password"]) == ("other", "mine_a", password)
    assert held["uri"].startswith("postgresql+psycopg2://mine_a:")
    assert held["more"] == "more"


async def test_rotation_gives_it_another_login(world: World, postgres: Postgres) -> None:
    """The other of the two; the one before is shut out once no pod has it, and the administrator is asked no more."""
    await ready(world)
    old = world.secret("a-database")
    world.change(rotateCredentialsAt="2026-01-01T00:00:00Z")
    await ready(world)
    new = world.secret("a-database")
    assert [old["username"], new["username"]] == [*provisioning.logins(DERIVED)]
    assert postgres.logins == {new["username"]: new["password"]}
    assert new["uri"] == old["uri"].replace(
        f"{old['username']}:{old['password']}@", f"{new['username']}:{new['password']}@"
    )
    before = [*world.api.writes]
    await world.reconcile()
    assert world.api.writes == before
    assert postgres.attempts == 1


async def gone(world: World) -> bool:
    """Deletes it with its data; whether it is gone after as many looks as that takes."""
    world.change(deletionPolicy="Delete")
    await world.reconcile()
    world.delete()
    for _ in range(5):
        await world.reconcile()
        world.settle()
        if world.get("MLflowServer", NAME) is None:
            return True
    return False


async def test_database_and_roles_go_with_it_and_then_the_secret(world: World, postgres: Postgres) -> None:
    await ready(world)
    assert await gone(world)
    assert postgres.made is None
    assert postgres.logins == {}
    assert world.get("Secret", "a-database") is None
    assert world.get("Secret", "admin")


async def test_a_postgres_that_is_away_holds_the_end(world: World, postgres: Postgres) -> None:
    """The password stays with the data, and a person can give up."""
    await ready(world)
    postgres.fault = DOWN
    assert not await gone(world)
    _, reason, message = world.condition("Ready")
    assert reason == "DeletionBlocked"
    assert message.startswith("The database is away.")
    assert world.get("Secret", "a-database")
    annotations = {labels.SKIP_DATA_DELETION: "true"}
    world.api.edit("MLflowServer", NAME, lambda live: live["metadata"].update(annotations=annotations))
    await world.reconcile()
    assert world.get("MLflowServer", NAME) is None
    said = world.events.published[-1][2]
    assert f"the database shared:5432/{DERIVED}" in said
    assert '"a-database"' in said


async def test_a_database_of_somebody_else_stays_and_holds_nothing(world: World, postgres: Postgres) -> None:
    """It lost our comment, or the name was taken after ours was dropped by hand."""
    await ready(world)
    postgres.fault = ConfigurationError(Reason.NAME_CONFLICT, "It is somebody's.")
    assert await gone(world)
    assert postgres.made
    assert f'untouched: the database "{DERIVED}"' in world.events.published[-1][2]
