"""Credentials are replaced under a running server: whoever is in use gets in at every moment."""

import base64
from dataclasses import dataclass, field
from typing import Any

import pytest

from mlflow_operator.clients.postgres import roles as postgres_logins
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import postgres_uri
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.simulation import NAME, NAMESPACE, CutOff, Store, World

LATER = "2026-01-01T00:00:00Z"
ROOT = "accessKeyID", "secretAccessKey"
"""Keys of the Secret that hold the embedded store's root key."""


@dataclass
class Database:
    """Who gets in, and by which password."""

    logins: dict[str, str] = field(default_factory=dict)
    fault: TransientError | None = None

    async def ensure_login(self, connection: Connection, owner: str, login: Login, field: str) -> None:
        """Lets another one in."""
        self.check(connection)
        self.logins[login.name] = login.password

    async def delete_login(self, connection: Connection, owner: str, name: str, field: str) -> None:
        """Shuts one out."""
        self.check(connection)
        assert name != connection.username, "shuts itself out"
        self.logins.pop(name, None)

    def check(self, connection: Connection) -> None:
        """AssertionError for whoever does not get in."""
        if self.fault:
            raise self.fault
        assert self.logins.get(connection.username) == connection.password, f"{connection} does not get in"


class Files(Store):
    """The embedded store: at its start it takes the root key that the Secret says, and then users of its own."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.users: dict[str, str] = {}
        self.strangers = 0
        """How often a key was tried that nobody has."""

    def start(self) -> None:
        """It reads its root key, once."""
        if not self.users:
            found = self.world.secret("a-artifacts")
            self.users[found["accessKeyID"]] = found["secretAccessKey"]

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Fine for who is known."""
        await super().ensure_bucket(bucket, create)
        self.start()
        if bucket.access_key not in self.users:
            self.strangers += 1
        if self.users.get(bucket.access_key) != bucket.secret_key:
            raise ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The store does not know the key.")
        return False

    def has_user(self, access_key_id: str) -> bool:
        """Whether anybody has it."""
        self.start()
        return access_key_id in self.users

    async def ensure_user(self, admin: Admin, user: AccessKey, name: str, policy: Object) -> None:
        """Lets another one in, at the root key's word."""
        assert self.users[admin.key.id] == admin.key.secret
        assert "arn:aws:s3:::mlflow/*" in str(policy)
        self.users[user.id] = user.secret

    async def delete_user(self, admin: Admin, access_key_id: str, name: str) -> None:
        """Shuts one out, at the root key's word."""
        assert self.users[admin.key.id] == admin.key.secret
        assert access_key_id != admin.key.id, "nobody would get in any more"
        self.users.pop(access_key_id, None)

    @property
    def others(self) -> dict[str, str]:
        """Who gets in beside the root key."""
        root = self.world.secret("a-artifacts")["accessKeyID"]
        return {who: word for who, word in self.users.items() if who != root}


@dataclass(frozen=True)
class Pod:
    """What one was given when it started."""

    connection: Connection
    key: tuple[str, str]


class Rotating:
    """A world whose pods keep what they read at their start, in front of stores that ask for passwords and keys."""

    def __init__(self, world: World, database: Database) -> None:
        self.world, self.database = world, database
        self.pods: dict[str, Pod] = {}

    def settle(self) -> None:
        """Kubernetes rolls the pods; each reads the Secret as it starts."""
        self.world.settle()
        live = self.world.get("Deployment", NAME)
        inputs = str(live["spec"]["template"]["metadata"]["annotations"][labels.INPUTS]) if live else ""
        if inputs and inputs not in self.pods:
            self.pods = {inputs: self.reads()}

    @property
    def files(self) -> Files:
        """The embedded artifact store."""
        assert isinstance(self.world.store, Files)
        return self.world.store

    def reads(self) -> Pod:
        """What a pod that starts now is given: what its manifest names."""
        live = self.world.get("Deployment", NAME)
        assert live
        (container,) = live["spec"]["template"]["spec"]["containers"]
        named = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}

        def given(variable: str) -> str:
            return self.world.secret(named[variable]["name"])[named[variable]["key"]]

        return Pod(
            postgres_uri.parse(given("MLFLOW_BACKEND_STORE_URI"), ""),
            (given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY")),
        )

    def all_get_in(self) -> None:
        """Pods that run, and a container that is started again at this moment."""
        for pod in (*self.pods.values(), self.reads()):
            self.database.check(pod.connection)
            who, word = pod.key
            assert self.files.users.get(who) == word, f"{who} does not open the store"

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
    world.store = Files(world)
    monkeypatch.setattr(postgres_logins, "ensure_login", database.ensure_login)
    monkeypatch.setattr(postgres_logins, "delete_login", database.delete_login)
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
    assert [each.connection.username for each in running.pods.values()] == ["mlflow_a"]
    live = world.get("MLflowServer", NAME)
    assert live
    assert live["status"]["credentialsRotatedAt"] == LATER
    assert world.condition("Ready")[0] == "True"
    assert (
        "CredentialsRotated",
        "New credentials are in use by every pod, and the old ones are shut out.",
    ) in [(reason, message) for _, reason, message in world.events.published]


async def test_the_store_gets_another_key_of_the_servers_own_at_the_same_time(running: Rotating) -> None:
    """Pods never hold the root key, which stays; and they are rolled once for both."""
    world = running.world
    old, rolled = world.secret("a-artifacts"), set(running.pods)
    assert [each.key[0] for each in running.pods.values()] == [old["serverAccessKeyID"]]
    world.change(rotateCredentialsAt=LATER)
    for _ in range(8):
        await world.reconcile()
        running.settle()
        rolled |= set(running.pods)
        running.all_get_in()
    new = world.secret("a-artifacts")
    assert (
        new["accessKeyID"] == old["accessKeyID"] not in {old["serverAccessKeyID"], new["serverAccessKeyID"]}
    )
    assert running.files.others == {new["serverAccessKeyID"]: new["serverSecretAccessKey"]}
    assert new["serverAccessKeyID"] != old["serverAccessKeyID"]
    assert len(rolled) == 2


async def test_a_store_that_logs_the_keys_it_does_not_know_is_tried_with_none_of_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The id of a key is half of it."""
    for engine, strangers in (("SeaweedFS", 0), ("MinIO", 1)):
        found = await started(monkeypatch, {"artifacts": {"embedded": {"engine": engine}}})
        assert found.files.strangers == strangers
        assert found.files.others


async def test_a_server_of_before_goes_on_with_the_root_key_until_it_is_replaced(running: Rotating) -> None:
    """Its Secret knows of no other one: nothing that the store does not know is given to its pods."""
    world = running.world
    own = ("serverAccessKeyID", "serverSecretAccessKey")
    world.api.edit("Secret", "a-artifacts", lambda live: [live["data"].pop(key) for key in own])
    running.files.users = {world.secret("a-artifacts")[k]: world.secret("a-artifacts")[v] for k, v in [ROOT]}
    running.pods.clear()
    await world.reconcile()
    await running.until_settled()
    held = world.secret("a-artifacts")
    assert [held[key] for key in own] == [held[key] for key in ROOT]
    world.change(rotateCredentialsAt=LATER)
    await running.until_settled()
    held = world.secret("a-artifacts")
    assert running.files.users == {held[k]: held[v] for k, v in (ROOT, own)}
    assert held[own[0]] != held[ROOT[0]]


async def test_a_key_that_the_store_has_forgotten_is_let_in_again(running: Rotating) -> None:
    """An older volume was put back, say."""
    world = running.world
    before = running.files.others
    for who in before:
        del running.files.users[who]
    await world.reconcile()
    assert running.files.others == before
    assert world.condition("ArtifactStoreReady")[0] == "True"


async def test_a_root_key_that_was_changed_under_the_store_is_told_with_both_ways_out(
    running: Rotating,
) -> None:
    """A store goes by the key that it found when it started; while the server's own gets in, nobody needs it."""
    world = running.world
    known = dict(running.files.users)
    word = base64.b64encode(b"another-one-by-hand").decode()
    world.api.edit("Secret", "a-artifacts", lambda live: live["data"].update(secretAccessKey=word))
    await world.reconcile()
    assert world.condition("ArtifactStoreReady")[0] == "True"
    running.files.users = {who: known[who] for who in known if who not in running.files.others}
    await world.reconcile()
    status, reason, message = world.condition("ArtifactStoreReady")
    assert (status, reason) == ("False", "BucketAccessDenied")
    assert (
        'if Secret "a-artifacts" was changed since, put its values back, or delete pod "a-artifacts-0"'
        in message
    )


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
        key = found.world.secret("a-artifacts")
        assert found.files.others == {key["serverAccessKeyID"]: key["serverSecretAccessKey"]}
        assert not any(name.startswith(("next", "previous")) for name in (*secret, *key))


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
    running.database.fault = TransientError(Reason.DATABASE_UNREACHABLE, "The database is away.")
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
