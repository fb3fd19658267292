"""The server's own user in a shared store, in states that are hard to reach with a real store."""

import asyncio
from typing import Any

import pytest

from mlflow_operator.clients.s3.minio_admin import Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.framework.dependencies import Timeouts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.unit.simulation import EXTERNAL, URI, FakeObjectStore, FakeStoreAdmin, SimulatedCluster

S3 = {
    "bucket": "models",
    "prefix": "team/a",
    "endpoint": "http://s3:9000",
    "adminSecretRef": {"name": "admin"},
}
SPEC: Object = {**EXTERNAL, "artifacts": {"s3": S3}}
DENIED = ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The store does not know the key.")


class FakeSharedStore(FakeObjectStore, FakeStoreAdmin):
    """A store with users and an admin API."""

    def __init__(self) -> None:
        super().__init__()
        self.users = {"root": "hunter2-hunter2"}
        self.granted_policies: list[tuple[str, Object]] = []
        self.admin_error: ReconcileError | None = None
        self.forbidden_buckets: set[str] = set()
        self.marker: str | None = None
        self.deletion_hangs = False
        self.emptied_prefixes: list[str] = []
        self.deleted_policies: list[str] = []

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Succeed for known keys."""
        await super().ensure_bucket(bucket, create)
        if self.users.get(bucket.access_key) != bucket.secret_key or bucket.name in self.forbidden_buckets:
            raise DENIED
        return False

    async def write_marker(self, bucket: Any, marker: str) -> None:
        """Behave like a store with an empty prefix."""
        self.marker = self.marker or marker

    async def read_marker(self, bucket: Any) -> str | None:
        """The marker that `write_marker` wrote."""
        if self.error:
            raise self.error
        return self.marker

    async def has_objects(self, bucket: Any) -> bool:
        """True until the objects are deleted."""
        return not self.emptied_prefixes

    async def delete_objects(self, bucket: Any) -> None:
        """Delete all objects including the marker."""
        if self.deletion_hangs:
            await asyncio.sleep(3600)
        self.emptied_prefixes.append(f"{bucket.name}/{bucket.key_prefix}")
        self.marker = None

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Behave like the client of the admin API."""
        self.users.pop(access_key_id, None)

    async def delete_policy(self, admin: Admin, policy_name: str) -> None:
        """Behave like the client of the admin API."""
        self.deleted_policies.append(policy_name)

    async def ensure_user(
        self,
        admin: Admin,
        user: AccessKey,
        policy_name: str,
        policy: Object,
        ownership: Ownership | None = None,
    ) -> None:
        """Behave like the client of the admin API."""
        if self.admin_error:
            raise self.admin_error
        if self.users.get(admin.key.id) != admin.key.secret:
            raise ConfigurationError(Reason.PROVISIONING_DENIED, "The store rejects the administrator's key.")
        self.users[user.id] = user.secret
        self.granted_policies.append((policy_name, policy))


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server with its own key."""
    simulation = SimulatedCluster(SPEC)
    simulation.store = simulation.store_admin = FakeSharedStore()
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("admin", accessKeyID="root", secretAccessKey="hunter2-hunter2")
    await simulation.reconcile_until_ready()
    return simulation


def store_of(simulation: SimulatedCluster) -> FakeSharedStore:
    """The fake store of the simulation."""
    assert isinstance(simulation.store, FakeSharedStore)
    return simulation.store


async def test_server_gets_its_own_key_and_never_the_administrator_key(
    simulation: SimulatedCluster,
) -> None:
    key = simulation.secret("a-artifacts")
    assert store_of(simulation).users[key["accessKeyID"]] == key["secretAccessKey"]
    assert (key["endpoint"], key["bucket"]) == ("http://s3:9000", "models")
    deployment = simulation.get("Deployment", "a")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    sources = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    assert sources["AWS_SECRET_ACCESS_KEY"] == {"name": "a-artifacts", "key": "secretAccessKey"}
    assert "admin" not in str(deployment)


async def test_policy_follows_the_prefix(simulation: SimulatedCluster) -> None:
    simulation.update_spec(artifacts={"s3": {**S3, "prefix": "team/b"}}, storageChangePolicy="Allow")
    await simulation.reconcile_until_stable()
    name, policy = store_of(simulation).granted_policies[-1]
    assert name == "mlflow-operator.team.a"
    assert "models/team/b/*" in str(policy)


async def test_secret_contains_the_current_artifact_location(simulation: SimulatedCluster) -> None:
    """The key and unknown values are kept."""
    before = simulation.secret("a-artifacts")
    simulation.update_spec(artifacts={"s3": {**S3, "bucket": "plots"}}, storageChangePolicy="Allow")
    await simulation.reconcile_until_stable()
    assert simulation.secret("a-artifacts") == {**before, "bucket": "plots"}


async def test_missing_secret_key_is_reported_with_instructions(simulation: SimulatedCluster) -> None:
    simulation.api.edit("Secret", "a-artifacts", lambda live: live["data"].pop("secretAccessKey"))
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "SecretKeyMissing"
    assert "delete the Secret" in simulation.condition("CredentialsReady")[2]


@pytest.mark.parametrize("failure", ["secret deleted", "wrong key", "admin API unavailable"])
async def test_server_keeps_its_key_if_the_administrator_key_fails(
    simulation: SimulatedCluster, failure: str
) -> None:
    """A rotation of the administrator's key must not stop the servers of the platform. The condition reports it."""
    if failure == "secret deleted":
        simulation.api.objects.pop(("Secret", "admin"))
    elif failure == "wrong key":
        simulation.put_secret("admin", accessKeyID="root", secretAccessKey="another")
    else:
        store_of(simulation).admin_error = TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE, "Its admin API is unreachable."
        )
    await simulation.reconcile_until_stable()
    status, _, message = simulation.condition("ArtifactStoreReady")
    assert status == "True"
    assert "the operator cannot change the bucket" in message
    assert simulation.condition("Ready")[0] == "True"


async def test_new_administrator_key_is_used_automatically(simulation: SimulatedCluster) -> None:
    store_of(simulation).users["root"] = "new-hunter2"
    await simulation.reconcile_until_stable()
    assert "rejects" in simulation.condition("ArtifactStoreReady")[2]
    simulation.put_secret("admin", accessKeyID="root", secretAccessKey="new-hunter2")
    await simulation.reconcile_until_stable()
    assert "rejects" not in simulation.condition("ArtifactStoreReady")[2]


async def test_user_that_the_store_lost_is_recreated_with_the_same_key(
    simulation: SimulatedCluster,
) -> None:
    key = simulation.secret("a-artifacts")
    del store_of(simulation).users[key["accessKeyID"]]
    await simulation.reconcile_until_stable()
    assert store_of(simulation).users[key["accessKeyID"]] == key["secretAccessKey"]
    assert simulation.condition("Ready")[0] == "True"


async def test_deleting_the_secret_creates_a_new_key(simulation: SimulatedCluster) -> None:
    """Unlike the root key of an embedded store, the key can be replaced without losing access to data."""
    before = simulation.secret("a-artifacts")
    simulation.api.objects.pop(("Secret", "a-artifacts"))
    await simulation.reconcile_until_stable()
    assert simulation.secret("a-artifacts")["accessKeyID"] != before["accessKeyID"]
    assert simulation.condition("Ready")[0] == "True"


async def test_no_user_is_created_while_the_store_is_unreachable(simulation: SimulatedCluster) -> None:
    store_of(simulation).error = TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE, "The store is unreachable."
    )
    before = len(store_of(simulation).granted_policies)
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[1] == "ArtifactStoreUnreachable"
    assert len(store_of(simulation).granted_policies) == before


async def test_new_server_reports_invalid_administrator_key() -> None:
    simulation = SimulatedCluster(SPEC)
    simulation.store = simulation.store_admin = FakeSharedStore()
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("admin", accessKeyID="root", secretAccessKey="wrong")
    await simulation.reconcile_until_stable()
    assert simulation.condition("ArtifactStoreReady")[:2] == ("False", "BucketAccessDenied")
    simulation.put_secret("admin", accessKeyID="root", secretAccessKey="ends in a line break\n")
    await simulation.reconcile_until_stable()
    assert simulation.condition("ArtifactStoreReady")[:2] == ("False", "SecretValueInvalid")


async def test_no_user_is_created_if_the_administrator_has_no_access_to_the_bucket() -> None:
    """The permissions of the administrator limit the buckets that tenants can request."""
    simulation = SimulatedCluster({**SPEC, "artifacts": {"s3": {**S3, "bucket": "payroll"}}})
    simulation.store = simulation.store_admin = store = FakeSharedStore()
    store.forbidden_buckets = {"payroll"}
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("admin", accessKeyID="root", secretAccessKey="hunter2-hunter2")
    await simulation.reconcile_until_stable()
    assert simulation.condition("ArtifactStoreReady")[:2] == ("False", "BucketAccessDenied")
    assert not store.granted_policies


async def test_bucket_settings_are_applied_with_the_administrator_key_and_only_if_set(
    simulation: SimulatedCluster,
) -> None:
    assert not store_of(simulation).applied_settings
    simulation.update_spec(artifacts={"s3": {**S3, "versioning": "Enabled"}})
    await simulation.reconcile_until_stable()
    (bucket, settings, rule), *_ = store_of(simulation).applied_settings
    assert bucket.access_key == "root"
    assert settings.versioned
    assert rule is None


async def test_rejected_bucket_settings_are_an_error_even_if_the_key_works(
    simulation: SimulatedCluster,
) -> None:
    """A True condition would hide that the requested settings are not in effect."""
    store_of(simulation).admin_error = ConfigurationError(Reason.BUCKET_SETTINGS_REFUSED, "No such key.")
    await simulation.reconcile_until_stable()
    assert simulation.condition("ArtifactStoreReady")[:2] == ("False", "BucketSettingsRefused")


async def test_store_that_is_not_s3_is_configured_but_not_checked() -> None:
    simulation = SimulatedCluster({**EXTERNAL, "artifacts": {"external": {"uri": "gs://models/team"}}})
    simulation.put_secret("db", uri=URI.format(host="one"))
    await simulation.reconcile_until_stable()
    status, _, message = simulation.condition("ArtifactStoreReady")
    assert status == "True"
    assert "spec.artifacts.external" in message
    assert not simulation.store.checked_buckets
    deployment = simulation.get("Deployment", "a")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    assert variables["MLFLOW_ARTIFACTS_DESTINATION"] == "gs://models/team"
    assert not {name for name in variables if name.startswith(("AWS_", "MLFLOW_S3", "MLFLOW_BOTO"))}
    resource = simulation.get("MLflowServer", "a")
    assert resource
    assert resource["status"]["artifacts"] == {"type": "External", "uri": "gs://models/team"}


async def delete_and_wait(simulation: SimulatedCluster) -> str:
    """Delete the server, reconcile until it is gone, and return the message of the last Event."""
    simulation.update_spec(deletionPolicy="Delete")
    await simulation.reconcile()
    simulation.delete_server()
    for _ in range(10):
        if simulation.get("MLflowServer", "a") is None:
            return simulation.events.published[-1][2]
        await simulation.reconcile()
        simulation.run_controllers()
    raise AssertionError(simulation.condition("Ready"))


async def test_deletion_removes_artifacts_key_and_policy(simulation: SimulatedCluster) -> None:
    """The prefix was empty when the server was created."""
    user = simulation.secret("a-artifacts")["accessKeyID"]
    message = await delete_and_wait(simulation)
    assert store_of(simulation).emptied_prefixes == ["models/team/a/"]
    assert user not in store_of(simulation).users
    assert store_of(simulation).deleted_policies == ["mlflow-operator.team.a"]
    assert "models" not in message


async def test_deletion_keeps_artifacts_if_the_prefix_was_not_empty(simulation: SimulatedCluster) -> None:
    """Objects existed before the server, and they cannot be distinguished from its own."""
    store_of(simulation).marker = None
    message = await delete_and_wait(simulation)
    assert store_of(simulation).emptied_prefixes == []
    assert store_of(simulation).deleted_policies == ["mlflow-operator.team.a"]
    assert (
        "does not belong to this server: the database in spec.database; the artifacts at s3://models/team/a, where "
        "objects existed before it" in message
    )


async def test_unreachable_store_blocks_the_deletion(simulation: SimulatedCluster) -> None:
    """The deletion continues when the store is reachable again."""
    simulation.update_spec(deletionPolicy="Delete")
    await simulation.reconcile()
    simulation.delete_server()
    await simulation.reconcile()
    simulation.run_controllers()
    store_of(simulation).error = TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE, "The store is unreachable."
    )
    await simulation.reconcile()
    _, reason, message = simulation.condition("Ready")
    assert reason == "DeletionBlocked"
    assert message.startswith("The store is unreachable. The deletion is blocked until this is fixed")
    assert simulation.get("Secret", "a-artifacts"), "the key is deleted last"
    store_of(simulation).error = None
    await simulation.reconcile()
    assert simulation.get("MLflowServer", "a") is None


async def test_deletion_of_many_artifacts_continues_in_later_reconciles(
    simulation: SimulatedCluster,
) -> None:
    """Each reconcile deletes for a limited time, so that it does not block other servers. This is not an error."""
    simulation.timeouts = Timeouts(delete_objects=0.0)
    simulation.update_spec(deletionPolicy="Delete")
    await simulation.reconcile()
    simulation.delete_server()
    await simulation.reconcile()
    simulation.run_controllers()
    store_of(simulation).deletion_hangs = True
    simulation.now = "2026-01-01T01:00:00Z"
    await simulation.reconcile()
    _, reason, message = simulation.condition("Ready")
    assert reason == "Progressing"
    assert "Waiting for the many artifacts at s3://models/team/a to be deleted" in message
    store_of(simulation).deletion_hangs = False
    simulation.timeouts = Timeouts()
    await simulation.reconcile()
    assert simulation.get("MLflowServer", "a") is None


async def test_key_has_access_to_both_prefixes_during_a_change(simulation: SimulatedCluster) -> None:
    """Pods with the previous prefix keep access until the last of them is gone."""
    deployment = simulation.get("Deployment", "a")
    assert deployment
    old = {**deployment["spec"]["template"]["spec"]}
    simulation.update_spec(artifacts={"s3": {**S3, "prefix": "team/b"}}, storageChangePolicy="Allow")
    await simulation.reconcile()
    path_sets = [object_paths(policy) for _, policy in store_of(simulation).granted_policies[-1:]]
    assert path_sets == [{"models/team/a/*", "models/team/b/*"}]
    meta = {"name": "old", "namespace": "team", "labels": labels.for_component("a", labels.SERVER_POD)}
    simulation.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": old, "status": {}})
    await simulation.reconcile_until_stable()
    assert object_paths(store_of(simulation).granted_policies[-1][1]) == {
        "models/team/a/*",
        "models/team/b/*",
    }
    del simulation.api.objects["Pod", "old"]
    await simulation.reconcile()
    assert object_paths(store_of(simulation).granted_policies[-1][1]) == {"models/team/b/*"}


def foreign_pod(uri: str) -> Object:
    """A pod with the server's labels that its namespace's editor created, with an artifact location of their choice."""
    env = [
        {"name": "MLFLOW_ARTIFACTS_DESTINATION", "value": uri},
        {"name": "MLFLOW_S3_ENDPOINT_URL", "value": S3["endpoint"]},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "widen",
            "namespace": "team",
            "labels": labels.for_component("a", labels.SERVER_POD),
        },
        "spec": {"containers": [{"name": "x", "image": "busybox", "env": env}]},
        "status": {"phase": "Pending"},
    }


@pytest.mark.parametrize("uri", ["s3://*", "s3://models/*", "s3://models/team-b", "s3://other"])
async def test_policy_ignores_locations_that_pods_claim(simulation: SimulatedCluster, uri: str) -> None:
    """Who can create pods in the namespace must not be able to extend the key to other servers' artifacts."""
    simulation.api.put(foreign_pod(uri))
    await simulation.reconcile()
    await simulation.reconcile()
    assert object_paths(store_of(simulation).granted_policies[-1][1]) == {"models/team/a/*"}


async def test_policy_ignores_location_in_edited_deployment(simulation: SimulatedCluster) -> None:
    """The operator reverts the edit, but computes the policy in the same reconcile from the observed Deployment."""

    def edit(deployment: Object) -> None:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        next(e for e in container["env"] if e["name"] == "MLFLOW_ARTIFACTS_DESTINATION")["value"] = (
            "s3://other"
        )

    simulation.api.edit("Deployment", "a", edit)
    await simulation.reconcile()
    await simulation.reconcile()
    for _, policy in store_of(simulation).granted_policies:
        assert object_paths(policy) == {"models/team/a/*"}
    server = simulation.get("MLflowServer", "a")
    assert server
    assert "previousLocations" not in server["status"]["artifacts"]


async def test_location_in_another_store_is_not_granted_in_this_store(simulation: SimulatedCluster) -> None:
    """The same bucket name in the new store may belong to someone else."""
    target = {**S3, "endpoint": "http://moved:9000", "prefix": "team/b"}
    simulation.update_spec(artifacts={"s3": target}, storageChangePolicy="Allow")

    def edit(deployment: Object) -> None:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        next(e for e in container["env"] if e["name"] == "MLFLOW_S3_ENDPOINT_URL")["value"] = target[
            "endpoint"
        ]

    simulation.api.edit("Deployment", "a", edit)
    await simulation.reconcile()
    assert object_paths(store_of(simulation).granted_policies[-1][1]) == {"models/team/b/*"}


def object_paths(policy: Object) -> set[str]:
    """Return the object paths that a policy grants access to."""
    resources = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    return {path.removeprefix("arn:aws:s3:::") for path in resources if path.endswith("*")}


async def test_rotation_replaces_the_key(simulation: SimulatedCluster) -> None:
    """The new key is granted access before it is used; the previous key is revoked once no pod uses it."""
    old = simulation.secret("a-artifacts")
    simulation.update_spec(rotateCredentialsAt="2026-01-01T00:00:00Z")
    await simulation.reconcile_until_stable()
    new = simulation.secret("a-artifacts")
    assert new["accessKeyID"] != old["accessKeyID"]
    assert store_of(simulation).users == {
        "root": "hunter2-hunter2",
        new["accessKeyID"]: new["secretAccessKey"],
    }
    assert simulation.condition("Ready")[0] == "True"
    live = simulation.get("MLflowServer", "a")
    assert live
    assert live["status"]["credentialsRotatedAt"] == "2026-01-01T00:00:00Z"


async def test_key_is_rotated_in_the_reconcile_that_moves_the_store(simulation: SimulatedCluster) -> None:
    """Both patch the Secret. With the Secret as observed before, the second patch would be a conflict."""
    simulation.put_secret("db", uri=URI.format(host="one"))
    before = simulation.secret("a-artifacts")
    moved = {"s3": {**S3, "endpoint": "http://moved:9000"}}
    simulation.update_spec(artifacts=moved, rotateCredentialsAt=simulation.now)
    await simulation.reconcile()
    after = simulation.secret("a-artifacts")
    assert after != before
    assert "http://moved:9000" in after.values()
