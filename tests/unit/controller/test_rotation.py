"""Credentials are replaced under a running server: whoever is in use gets in at every moment."""

from dataclasses import dataclass, field

import pytest

from mlflow_operator.core import database_uri, kinds, labels
from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import NotReady
from mlflow_operator.core.objects import Object
from mlflow_operator.core.provisioning import Login
from mlflow_operator.providers import postgres_logins

from .world import NAME, NAMESPACE, CutOff, World

LATER = "2026-01-01T00:00:00Z"


@dataclass
class Database:
    """Who gets in, and by which password."""

    logins: dict[str, str] = field(default_factory=dict)
    fault: NotReady | None = None

    async def admit(self, connection: Connection, owner: str, login: Login, field: str) -> None:
        """Lets another one in."""
        self.check(connection)
        self.logins[login.name] = login.password

    async def revoke(self, connection: Connection, owner: str, name: str, field: str) -> None:
        """Shuts one out."""
        self.check(connection)
        assert name != connection.username, "shuts itself out"
        self.logins.pop(name, None)

    def check(self, connection: Connection) -> None:
        """AssertionError for whoever does not get in."""
        if self.fault:
            raise self.fault
        assert self.logins.get(connection.username) == connection.password, f"{connection} does not get in"


class Rotating:
    """A world whose pods keep what they read at their start, in front of a database that asks for passwords."""

    def __init__(self, world: World, database: Database) -> None:
        self.world, self.database = world, database
        self.pods: dict[str, Connection] = {}

    def settle(self) -> None:
        """Kubernetes rolls the pods; each reads the Secret as it starts."""
        self.world.settle()
        live = self.world.get("Deployment", NAME)
        inputs = str(live["spec"]["template"]["metadata"]["annotations"][labels.INPUTS]) if live else ""
        if inputs and inputs not in self.pods:
            self.pods = {inputs: self.reads()}

    def reads(self) -> Connection:
        """What a pod that starts now is given."""
        return database_uri.parse(self.world.secret(f"{NAME}-server")["backend-store-uri"], "")

    def all_get_in(self) -> None:
        """Pods that run, and a container that is started again at this moment."""
        for connection in (*self.pods.values(), self.reads()):
            self.database.check(connection)

    async def until_settled(self, rounds: int = 12) -> None:
        """Reconciles until nothing is written; at each turn everybody gets in."""
        for _ in range(rounds):
            self.settle()
            self.all_get_in()
            before = len(self.world.api.writes)
            await self.world.reconcile()
            self.all_get_in()
            if len(self.world.api.writes) == before:
                return
        raise AssertionError(f"never comes to rest: {self.world.api.writes[-8:]}")


async def started(monkeypatch: pytest.MonkeyPatch, spec: Object | None = None) -> Rotating:
    """A server that is Ready and at rest."""
    world, database = World(monkeypatch, spec), Database()
    monkeypatch.setattr(postgres_logins, "admit", database.admit)
    monkeypatch.setattr(postgres_logins, "revoke", database.revoke)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    database.logins["mlflow"] = world.secret("a-database")["password"]
    found = Rotating(world, database)
    found.settle()
    return found


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> Rotating:
    """One with an embedded database."""
    return await started(monkeypatch)


async def test_a_later_time_brings_a_new_password_and_ends_the_old_one(running: Rotating) -> None:
    """The Secret, the pods and the status say the new one; the old one opens nothing."""
    world = running.world
    old = world.secret("a-database")
    world.change(rotateCredentialsAt=LATER)
    await running.until_settled()
    new = world.secret("a-database")
    assert new["username"] == "mlflow_a"
    assert new["password"] != old["password"]
    assert new["uri"] == old["uri"].replace(f"mlflow:{old['password']}@", f"mlflow_a:{new['password']}@")
    assert running.database.logins == {"mlflow_a": new["password"]}
    assert [each.username for each in running.pods.values()] == ["mlflow_a"]
    live = world.get("MLflowServer", NAME)
    assert live
    assert live["status"]["credentialsRotatedAt"] == LATER
    assert world.condition("Ready")[0] == "True"
    assert (
        "CredentialsRotated",
        "New credentials are in use by every pod, and the old ones are shut out.",
    ) in [(reason, message) for _, reason, message in world.events.published]


async def test_it_is_done_once_for_a_time_and_again_for_a_later_one(running: Rotating) -> None:
    """At rest nothing is written; names take turns."""
    world = running.world
    world.change(rotateCredentialsAt=LATER)
    await running.until_settled()
    before = [*world.api.writes]
    await world.reconcile()
    assert world.api.writes == before
    world.now = "2026-01-03T00:00:00Z"
    world.change(rotateCredentialsAt="2026-01-02T00:00:00Z")
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow_b"]
    world.change(rotateCredentialsAt=None)
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow_b"]


async def test_cut_off_after_any_write_it_goes_on_and_nobody_is_locked_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For each N: the process dies after its Nth write; pods that run or start then get in, and it ends well."""
    whole = await started(monkeypatch)
    begun = len(whole.world.api.writes)
    whole.world.change(rotateCredentialsAt=LATER)
    await whole.until_settled()
    count = len(whole.world.api.writes) - begun
    assert count >= 6
    for n in range(count):
        found = await started(monkeypatch)
        found.world.change(rotateCredentialsAt=LATER)
        found.world.api.dies_after = len(found.world.api.writes) + n
        with pytest.raises((CutOff, BaseExceptionGroup)):
            await found.until_settled()
        found.all_get_in()
        found.world.api.dies_after = None
        await found.until_settled()
        secret = found.world.secret("a-database")
        assert found.database.logins == {secret["username"]: secret["password"]}, f"cut off after write {n}"
        assert not any(key.startswith(("next", "previous")) for key in secret)


async def test_the_old_one_gets_in_for_as_long_as_any_pod_uses_it(running: Rotating) -> None:
    """Also one that is only on its way out: it answers requests to its end."""
    world = running.world
    inputs = next(iter(running.pods))
    lingering = {
        "name": "a-pod-old",
        "namespace": NAMESPACE,
        "labels": labels.owned(NAME, labels.SERVER_POD),
        "annotations": {labels.INPUTS: inputs},
        "deletionTimestamp": world.now,
    }
    world.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": lingering, "status": {"phase": "Running"}})
    world.change(rotateCredentialsAt=LATER)
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow", "mlflow_a"]
    status, reason, message = world.condition("CredentialsReady")
    assert (status, reason) == ("True", "RotationInProgress")
    assert "the old ones are shut out after that" in message
    del world.api.objects[kinds.POD.kind, "a-pod-old"]
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow_a"]
    assert world.condition("CredentialsReady")[:2] == ("True", "Ready")


async def test_a_deployment_that_was_not_rolled_yet_keeps_the_old_one(
    running: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema's step holds the server back, say: what its pods use is the old one."""
    world = running.world
    world.change(rotateCredentialsAt=LATER)
    await world.reconcile()
    assert world.secret("a-database")["username"] == "mlflow_a"
    world.change(image="own/mlflow:9")
    for _ in range(3):
        await world.reconcile()
        world.settle(jobs=False)
    running.all_get_in()
    assert [*running.database.logins] == ["mlflow", "mlflow_a"]


async def test_a_database_that_is_away_is_waited_for_and_told(running: Rotating) -> None:
    """What is in use goes on."""
    world = running.world
    running.database.fault = NotReady(Reason.DATABASE_UNREACHABLE, "The database is away.")
    world.change(rotateCredentialsAt=LATER)
    await world.reconcile()
    assert world.condition("CredentialsReady") == (
        "False",
        "DatabaseUnreachable",
        "The database is away. Credentials are being replaced, and that waits for it; those in use go on.",
    )
    assert world.secret("a-database")["username"] == "mlflow"
    noted = world.secret("a-database")["nextPassword"]
    running.database.fault = None
    await running.until_settled()
    assert running.database.logins == {"mlflow_a": noted}


async def test_a_time_to_come_is_waited_for(running: Rotating) -> None:
    """At rest until then."""
    world = running.world
    world.change(rotateCredentialsAt="2026-01-01T12:00:00Z")
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow"]
    world.now = "2026-01-01T12:00:30Z"
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow_a"]


async def test_suspended_it_waits(running: Rotating) -> None:
    """The stores are down; it is carried out when they are up again."""
    world = running.world
    world.change(rotateCredentialsAt=LATER, suspend=True)
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow"]
    world.change(suspend=False)
    await running.until_settled()
    assert [*running.database.logins] == ["mlflow_a"]


async def test_what_the_owner_s_secrets_hold_is_the_owner_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not replaced, and the sentence says so."""
    world = await World.on_external_stores(monkeypatch)
    world.change(rotateCredentialsAt=LATER)
    await world.until_settled()
    status, reason, message = world.condition("CredentialsReady")
    assert (status, reason) == ("True", "Ready")
    assert "not the operator's to replace" in message
    live = world.get("MLflowServer", NAME)
    assert live
    assert "credentialsRotatedAt" not in live["status"]
