"""A server's own key on a shared store, in moments that a real store can't be brought to at will."""

import asyncio
from typing import Any

import pytest

from mlflow_operator.clients.s3 import minio_admin
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.deletion import remote
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.unit.simulation import EXTERNAL, URI, Store, World

S3 = {
    "bucket": "models",
    "prefix": "team/a",
    "endpoint": "http://s3:9000",
    "adminSecretRef": {"name": "admin"},
}
SPEC: Object = {**EXTERNAL, "artifacts": {"s3": S3}}
DENIED = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The store does not know the key.")


class Shared(Store):
    """A store with users, and its admin API."""

    def __init__(self) -> None:
        super().__init__()
        self.users = {"root": "hunter2-hunter2"}
        self.admitted: list[tuple[str, Object]] = []
        self.admin_fault: ReconcileError | None = None
        self.closed: set[str] = set()
        self.marker: str | None = None
        self.endless = False
        self.emptied: list[str] = []
        self.removed: list[str] = []

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Fine for who is known."""
        await super().ensure_bucket(bucket, create)
        if self.users.get(bucket.access_key) != bucket.secret_key or bucket.name in self.closed:
            raise DENIED
        return False

    async def write_marker(self, bucket: Any, marker: str) -> None:
        """As an empty place."""
        self.marker = self.marker or marker

    async def has_marker(self, bucket: Any) -> str | None:
        """What `claim` left."""
        if self.fault:
            raise self.fault
        return self.marker

    async def has_objects(self, bucket: Any) -> bool:
        """Whatever was not emptied."""
        return not self.emptied

    async def delete_objects(self, bucket: Any) -> None:
        """All of it, the marker with it."""
        if self.endless:
            await asyncio.sleep(3600)
        self.emptied.append(f"{bucket.name}/{bucket.folder}")
        self.marker = None

    async def delete_user(self, admin: Admin, access_key_id: str, name: str) -> None:
        """As the provider."""
        self.users.pop(access_key_id, None)

    async def remove_policy(self, admin: Admin, name: str) -> None:
        """As the provider."""
        self.removed.append(name)

    async def ensure_user(self, admin: Admin, user: AccessKey, name: str, policy: Object) -> None:
        """As the provider."""
        if self.admin_fault:
            raise self.admin_fault
        if self.users.get(admin.key.id) != admin.key.secret:
            raise ConfigurationError(Reason.PROVISIONING_DENIED, "The store refuses the administrator's key.")
        self.users[user.id] = user.secret
        self.admitted.append((name, policy))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server with a key of its own, Ready and at rest."""
    made = World(monkeypatch, SPEC)
    made.store = Shared()
    monkeypatch.setattr(minio_admin, "remove_policy", made.store.remove_policy)
    made.put_secret("db", uri=URI.format(host="one"))
    made.put_secret("admin", accessKeyID="root", secretAccessKey="hunter2-hunter2")
    await made.until_settled()
    assert made.condition("Ready")[0] == "True"
    return made


def shared(world: World) -> Shared:
    """The store."""
    assert isinstance(world.store, Shared)
    return world.store


async def test_the_server_gets_a_key_of_its_own_and_never_sees_the_administrators(world: World) -> None:
    key = world.secret("a-artifacts")
    assert shared(world).users[key["accessKeyID"]] == key["secretAccessKey"]
    assert (key["endpoint"], key["bucket"]) == ("http://s3:9000", "models")
    deployment = world.get("Deployment", "a")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    sources = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    assert sources["AWS_SECRET_ACCESS_KEY"] == {"name": "a-artifacts", "key": "secretAccessKey"}
    assert "admin" not in str(deployment)


async def test_the_policy_follows_the_prefix(world: World) -> None:
    world.change(artifacts={"s3": {**S3, "prefix": "team/b"}}, storageChangePolicy="Allow")
    await world.until_settled()
    name, policy = shared(world).admitted[-1]
    assert name == "mlflow-operator.team.a"
    assert "models/team/b/*" in str(policy)


async def test_the_secret_tells_where_the_artifacts_are_now(world: World) -> None:
    """And keeps the key, and whatever else somebody keeps there."""
    before = world.secret("a-artifacts")
    world.change(artifacts={"s3": {**S3, "bucket": "plots"}}, storageChangePolicy="Allow")
    await world.until_settled()
    assert world.secret("a-artifacts") == {**before, "bucket": "plots"}


async def test_a_key_that_the_secret_has_lost_is_told_with_the_way_out(world: World) -> None:
    world.api.edit("Secret", "a-artifacts", lambda live: live["data"].pop("secretAccessKey"))
    await world.reconcile()
    assert world.condition("CredentialsReady")[1] == "SecretKeyMissing"
    assert "delete the Secret" in world.condition("CredentialsReady")[2]


@pytest.mark.parametrize("trouble", ["gone", "wrong", "refused"])
async def test_a_server_goes_on_with_its_key_whatever_becomes_of_the_administrators(
    world: World, trouble: str
) -> None:
    """Who rotates it elsewhere first must not stop every server on the platform; the condition says it all the same."""
    if trouble == "gone":
        world.api.objects.pop(("Secret", "admin"))
    elif trouble == "wrong":
        world.put_secret("admin", accessKeyID="root", secretAccessKey="another")
    else:
        shared(world).admin_fault = TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE, "Its admin API is away."
        )
    await world.until_settled()
    status, _, message = world.condition("ArtifactStoreReady")
    assert status == "True"
    assert "nothing about it can be changed now" in message
    assert world.condition("Ready")[0] == "True"


async def test_an_administrators_new_key_is_taken_by_itself(world: World) -> None:
    shared(world).users["root"] = "new-hunter2"
    await world.until_settled()
    assert "refuses" in world.condition("ArtifactStoreReady")[2]
    world.put_secret("admin", accessKeyID="root", secretAccessKey="new-hunter2")
    await world.until_settled()
    assert "refuses" not in world.condition("ArtifactStoreReady")[2]


async def test_a_key_that_the_store_has_lost_is_made_again_with_the_same_secret(world: World) -> None:
    key = world.secret("a-artifacts")
    del shared(world).users[key["accessKeyID"]]
    await world.until_settled()
    assert shared(world).users[key["accessKeyID"]] == key["secretAccessKey"]
    assert world.condition("Ready")[0] == "True"


async def test_whoever_deletes_the_secret_gets_another_key(world: World) -> None:
    """It opens nothing that another one can't: unlike an embedded store's."""
    before = world.secret("a-artifacts")
    world.api.objects.pop(("Secret", "a-artifacts"))
    await world.until_settled()
    assert world.secret("a-artifacts")["accessKeyID"] != before["accessKeyID"]
    assert world.condition("Ready")[0] == "True"


async def test_a_store_that_is_away_is_not_asked_for_a_new_key(world: World) -> None:
    shared(world).fault = TransientError(Reason.ARTIFACT_STORE_UNREACHABLE, "The store is away.")
    before = len(shared(world).admitted)
    await world.reconcile()
    assert world.condition("ArtifactStoreReady")[1] == "ArtifactStoreUnreachable"
    assert len(shared(world).admitted) == before


async def test_without_a_right_administrator_a_new_server_waits_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = World(monkeypatch, SPEC)
    made.store = Shared()
    made.put_secret("db", uri=URI.format(host="one"))
    made.put_secret("admin", accessKeyID="root", secretAccessKey="wrong")
    await made.until_settled()
    assert made.condition("ArtifactStoreReady")[:2] == ("False", "BucketAccessDenied")
    made.put_secret("admin", accessKeyID="root", secretAccessKey="ends in a line break\n")
    await made.until_settled()
    assert made.condition("ArtifactStoreReady")[:2] == ("False", "SecretValueInvalid")


async def test_no_key_is_made_for_a_bucket_that_the_administrator_itself_may_not_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a platform can say by its administrator's own rights which buckets tenants may ask for."""
    made = World(monkeypatch, {**SPEC, "artifacts": {"s3": {**S3, "bucket": "payroll"}}})
    made.store = store = Shared()
    store.closed = {"payroll"}
    made.put_secret("db", uri=URI.format(host="one"))
    made.put_secret("admin", accessKeyID="root", secretAccessKey="hunter2-hunter2")
    await made.until_settled()
    assert made.condition("ArtifactStoreReady")[:2] == ("False", "BucketAccessDenied")
    assert not store.admitted


async def test_settings_are_made_by_the_administrator_and_not_asked_for_without_need(world: World) -> None:
    assert not shared(world).managed
    world.change(artifacts={"s3": {**S3, "versioning": "Enabled"}})
    await world.until_settled()
    (by, settings, rule), *_ = shared(world).managed
    assert by.access_key == "root"
    assert settings.versioned
    assert rule is None


async def test_settings_that_the_bucket_does_not_take_are_a_fault_though_the_key_works(world: World) -> None:
    """They were asked for: a condition that is True would hide that they are not to be had."""
    shared(world).admin_fault = ConfigurationError(Reason.BUCKET_SETTINGS_REFUSED, "No such key.")
    await world.until_settled()
    assert world.condition("ArtifactStoreReady")[:2] == ("False", "BucketSettingsRefused")


async def test_a_store_that_is_not_s3_is_passed_on_and_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made = World(monkeypatch, {**EXTERNAL, "artifacts": {"external": {"uri": "gs://models/team"}}})
    made.put_secret("db", uri=URI.format(host="one"))
    await made.until_settled()
    status, _, message = made.condition("ArtifactStoreReady")
    assert status == "True"
    assert "spec.artifacts.external" in message
    assert not made.store.asked
    deployment = made.get("Deployment", "a")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    plain = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    assert plain["MLFLOW_ARTIFACTS_DESTINATION"] == "gs://models/team"
    assert not {name for name in plain if name.startswith(("AWS_", "MLFLOW_S3", "MLFLOW_BOTO"))}
    resource = made.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["artifacts"] == {"type": "External", "uri": "gs://models/team"}


async def ended(world: World) -> str:
    """Deletes the server, waits until it is gone, and gives the last that was said."""
    world.change(deletionPolicy="Delete")
    await world.reconcile()
    world.delete()
    for _ in range(10):
        if world.get("MLflowServer", "a") is None:
            return world.events.published[-1][2]
        await world.reconcile()
        world.settle()
    raise AssertionError(world.condition("Ready"))


async def test_its_files_key_and_policy_go_with_it(world: World) -> None:
    """The place was empty when it was given to this server."""
    user = world.secret("a-artifacts")["accessKeyID"]
    said = await ended(world)
    assert shared(world).emptied == ["models/team/a/"]
    assert user not in shared(world).users
    assert shared(world).removed == ["mlflow-operator.team.a"]
    assert "models" not in said


async def test_files_of_before_stay(world: World) -> None:
    """Somebody's lay there when the server came: nobody can tell them from its own."""
    shared(world).marker = None
    said = await ended(world)
    assert shared(world).emptied == []
    assert shared(world).removed == ["mlflow-operator.team.a"]
    assert (
        "untouched: the database of its spec; the artifacts at s3://models/team/a, where something lay"
        in said
    )


async def test_a_store_that_is_away_holds_the_end_and_says_so(world: World) -> None:
    """Until it is back, or somebody gives up."""
    world.change(deletionPolicy="Delete")
    await world.reconcile()
    world.delete()
    await world.reconcile()
    world.settle()
    shared(world).fault = TransientError(Reason.ARTIFACT_STORE_UNREACHABLE, "The store is away.")
    await world.reconcile()
    _, reason, message = world.condition("Ready")
    assert reason == "DeletionBlocked"
    assert message.startswith("The store is away. Until that is mended")
    assert world.get("Secret", "a-artifacts"), "the key goes last"
    shared(world).fault = None
    await world.reconcile()
    assert world.get("MLflowServer", "a") is None


async def test_many_files_take_their_time_and_block_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part at a time, so that other servers have their turn; no fault is made of it."""
    monkeypatch.setattr(remote, "_SHARE", 0.0)
    world.change(deletionPolicy="Delete")
    await world.reconcile()
    world.delete()
    await world.reconcile()
    world.settle()
    shared(world).endless = True
    world.now = "2026-01-01T01:00:00Z"
    await world.reconcile()
    _, reason, message = world.condition("Ready")
    assert reason == "Progressing"
    assert "its files at s3://models/team/a to be deleted: there are many" in message
    shared(world).endless = False
    monkeypatch.setattr(remote, "_SHARE", 30.0)
    await world.reconcile()
    assert world.get("MLflowServer", "a") is None


async def test_while_it_moves_the_key_opens_both_places(world: World) -> None:
    """Pods of before go on until the last of them is gone."""
    deployment = world.get("Deployment", "a")
    assert deployment
    old = {**deployment["spec"]["template"]["spec"]}
    world.change(artifacts={"s3": {**S3, "prefix": "team/b"}}, storageChangePolicy="Allow")
    await world.reconcile()
    places = [places_of(policy) for _, policy in shared(world).admitted[-1:]]
    assert places == [{"models/team/a/*", "models/team/b/*"}]
    meta = {"name": "old", "namespace": "team", "labels": labels.owned("a", labels.SERVER_POD)}
    world.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": old, "status": {}})
    await world.until_settled()
    assert places_of(shared(world).admitted[-1][1]) == {"models/team/a/*", "models/team/b/*"}
    del world.api.objects["Pod", "old"]
    await world.reconcile()
    assert places_of(shared(world).admitted[-1][1]) == {"models/team/b/*"}


def places_of(policy: Object) -> set[str]:
    """All objects that a policy is about."""
    found = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    return {each.removeprefix("arn:aws:s3:::") for each in found if each.endswith("*")}


async def test_rotation_gives_it_another_key(world: World) -> None:
    """Let in before it is used, and the one before is shut out once no pod has it."""
    old = world.secret("a-artifacts")
    world.change(rotateCredentialsAt="2026-01-01T00:00:00Z")
    await world.until_settled()
    new = world.secret("a-artifacts")
    assert new["accessKeyID"] != old["accessKeyID"]
    assert shared(world).users == {"root": "hunter2-hunter2", new["accessKeyID"]: new["secretAccessKey"]}
    assert world.condition("Ready")[0] == "True"
    live = world.get("MLflowServer", "a")
    assert live
    assert live["status"]["credentialsRotatedAt"] == "2026-01-01T00:00:00Z"
