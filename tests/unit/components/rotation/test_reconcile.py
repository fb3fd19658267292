"""Rotation of the credentials of a running server: the credentials in use have access at every moment."""

import base64
from dataclasses import dataclass
from typing import Any

import pytest

from mlflow_operator.clients.s3.minio_admin import Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import postgres_uri
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.simulation import (
    NAME,
    NAMESPACE,
    FakeObjectStore,
    FakeStoreAdmin,
    ProcessKilled,
    SimulatedCluster,
)

REQUESTED_AT = "2026-01-01T00:00:00Z"
ROOT_KEY_FIELDS = "accessKeyID", "secretAccessKey"
"""Keys of the Secret with the root key of the embedded store."""


class FakeEmbeddedStore(FakeObjectStore, FakeStoreAdmin):
    """The embedded store. It reads the root key from the Secret at its start, and then has its own users."""

    def __init__(self, simulation: SimulatedCluster) -> None:
        super().__init__()
        self.simulation = simulation
        self.users: dict[str, str] = {}
        self.unknown_key_attempts = 0
        """Number of requests with an unknown key."""

    def load_root_key(self) -> None:
        """Read the root key, once."""
        if not self.users:
            secret = self.simulation.secret("a-artifacts")
            self.users[secret["accessKeyID"]] = secret["secretAccessKey"]

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Succeed for known keys."""
        await super().ensure_bucket(bucket, create)
        self.load_root_key()
        if bucket.access_key not in self.users:
            self.unknown_key_attempts += 1
        if self.users.get(bucket.access_key) != bucket.secret_key:
            raise ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The store does not know the key.")
        return False

    async def has_key(self, admin: Admin, access_key_id: str, user: str) -> bool:
        """Whether a user has the key."""
        self.load_root_key()
        return access_key_id in self.users

    async def ensure_user(
        self,
        admin: Admin,
        user: AccessKey,
        policy_name: str,
        policy: Object,
        ownership: Ownership | None = None,
    ) -> None:
        """Add a user with the root key."""
        assert self.users[admin.key.id] == admin.key.secret
        assert "arn:aws:s3:::mlflow/*" in str(policy)
        self.users[user.id] = user.secret

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Delete a user with the root key."""
        assert self.users[admin.key.id] == admin.key.secret
        assert access_key_id != admin.key.id, "the root key must not be deleted"
        self.users.pop(access_key_id, None)

    @property
    def users_without_root(self) -> dict[str, str]:
        """The users other than root, with their keys."""
        root = self.simulation.secret("a-artifacts")["accessKeyID"]
        return {key_id: secret_key for key_id, secret_key in self.users.items() if key_id != root}


@dataclass(frozen=True)
class PodCredentials:
    """The credentials that a pod read when it started."""

    connection: Connection
    key: tuple[str, str]


class RotationSimulation:
    """A simulated cluster whose pods keep the credentials of their start and whose stores check credentials."""

    def __init__(self, simulation: SimulatedCluster) -> None:
        self.simulation, self.database = simulation, simulation.postgres_roles
        self.pods: dict[str, PodCredentials] = {}

    def run_controllers(self) -> None:
        """Kubernetes rolls the pods. Each pod reads the Secrets when it starts."""
        self.simulation.run_controllers()
        live = self.simulation.get("Deployment", NAME)
        inputs = (
            str(live["spec"]["template"]["metadata"]["annotations"][labels.INPUTS_DIGEST]) if live else ""
        )
        if inputs and inputs not in self.pods:
            self.pods = {inputs: self.current_credentials()}

    @property
    def store(self) -> FakeEmbeddedStore:
        """The embedded artifact store."""
        assert isinstance(self.simulation.store, FakeEmbeddedStore)
        return self.simulation.store

    def current_credentials(self) -> PodCredentials:
        """The credentials that a pod reads if it starts now, from the references in its manifest."""
        live = self.simulation.get("Deployment", NAME)
        assert live
        (container,) = live["spec"]["template"]["spec"]["containers"]
        references = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}

        def value_of(variable: str) -> str:
            return self.simulation.secret(references[variable]["name"])[references[variable]["key"]]

        return PodCredentials(
            postgres_uri.parse(value_of("MLFLOW_BACKEND_STORE_URI"), ""),
            (value_of("AWS_ACCESS_KEY_ID"), value_of("AWS_SECRET_ACCESS_KEY")),
        )

    def assert_access(self) -> None:
        """Check the running pods, and a container that restarts now."""
        for pod in (*self.pods.values(), self.current_credentials()):
            self.database.check_login(pod.connection)
            key_id, secret_key = pod.key
            assert self.store.users.get(key_id) == secret_key, f"{key_id} has no access to the store"

    async def reconcile_until_stable(self, rounds: int = 12) -> None:
        """Reconcile until nothing is written, and check access before and after each reconcile."""
        for _ in range(rounds):
            self.run_controllers()
            self.assert_access()
            before = len(self.simulation.api.writes)
            await self.simulation.reconcile()
            self.assert_access()
            if len(self.simulation.api.writes) == before:
                return
        raise AssertionError(f"not stable: {self.simulation.api.writes[-8:]}")


async def start_server(spec: Object | None = None) -> RotationSimulation:
    """A Ready server that no longer changes."""
    simulation = SimulatedCluster(spec)
    simulation.store = simulation.store_admin = FakeEmbeddedStore(simulation)
    await simulation.reconcile_until_ready()
    simulation.postgres_roles.logins["mlflow"] = simulation.secret("a-database")["password"]
    rotation = RotationSimulation(simulation)
    rotation.run_controllers()
    return rotation


@pytest.fixture
async def rotation() -> RotationSimulation:
    """A Ready server with embedded stores."""
    return await start_server()


async def test_rotation_replaces_and_revokes_the_database_password(rotation: RotationSimulation) -> None:
    """The Secret, the pods and the status have the new login; the old login has no access."""
    simulation = rotation.simulation
    old = simulation.secret("a-database")
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await rotation.reconcile_until_stable()
    new = simulation.secret("a-database")
    assert new["username"] == "mlflow_a"
    assert new["password"] != old["password"]
    assert new["uri"] == old["uri"].replace(f"mlflow:{old['password']}@", f"mlflow_a:{new['password']}@")
    assert rotation.database.logins == {"mlflow_a": new["password"]}
    assert [pod.connection.username for pod in rotation.pods.values()] == ["mlflow_a"]
    live = simulation.get("MLflowServer", NAME)
    assert live
    assert live["status"]["credentialsRotatedAt"] == REQUESTED_AT
    assert simulation.condition("Ready")[0] == "True"
    assert (
        "CredentialsRotated",
        "All pods use the new credentials, and the old credentials are revoked.",
    ) in [(reason, message) for _, reason, message in simulation.events.published]


async def test_database_and_store_key_rotate_with_one_rollout(rotation: RotationSimulation) -> None:
    """Pods never have the root key, which is not rotated. They are rolled once for both credentials."""
    simulation = rotation.simulation
    old, rolled = simulation.secret("a-artifacts"), set(rotation.pods)
    assert [pod.key[0] for pod in rotation.pods.values()] == [old["serverAccessKeyID"]]
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    for _ in range(8):
        await simulation.reconcile()
        rotation.run_controllers()
        rolled |= set(rotation.pods)
        rotation.assert_access()
    new = simulation.secret("a-artifacts")
    assert (
        new["accessKeyID"] == old["accessKeyID"] not in {old["serverAccessKeyID"], new["serverAccessKeyID"]}
    )
    assert rotation.store.users_without_root == {new["serverAccessKeyID"]: new["serverSecretAccessKey"]}
    assert new["serverAccessKeyID"] != old["serverAccessKeyID"]
    assert len(rolled) == 2


async def test_seaweedfs_gets_no_requests_with_unknown_keys() -> None:
    """SeaweedFS logs the id of an unknown key, which is half of the credential."""
    for engine, unknown_key_attempts in (("SeaweedFS", 0), ("MinIO", 1)):
        rotation = await start_server({"artifacts": {"embedded": {"engine": engine}}})
        assert rotation.store.unknown_key_attempts == unknown_key_attempts
        assert rotation.store.users_without_root


async def test_server_of_an_older_operator_keeps_the_root_key_until_rotation(
    rotation: RotationSimulation,
) -> None:
    """Its Secret has no other key, and its pods must not get a key that the store does not know."""
    simulation = rotation.simulation
    server_fields = ("serverAccessKeyID", "serverSecretAccessKey")
    simulation.api.edit(
        "Secret", "a-artifacts", lambda live: [live["data"].pop(key) for key in server_fields]
    )
    rotation.store.users = {
        simulation.secret("a-artifacts")[k]: simulation.secret("a-artifacts")[v] for k, v in [ROOT_KEY_FIELDS]
    }
    rotation.pods.clear()
    await simulation.reconcile()
    await rotation.reconcile_until_stable()
    values = simulation.secret("a-artifacts")
    assert [values[key] for key in server_fields] == [values[key] for key in ROOT_KEY_FIELDS]
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await rotation.reconcile_until_stable()
    values = simulation.secret("a-artifacts")
    assert rotation.store.users == {values[k]: values[v] for k, v in (ROOT_KEY_FIELDS, server_fields)}
    assert values[server_fields[0]] != values[ROOT_KEY_FIELDS[0]]


async def test_user_that_the_store_lost_is_recreated(rotation: RotationSimulation) -> None:
    """For example, an older volume was restored."""
    simulation = rotation.simulation
    before = rotation.store.users_without_root
    for key_id in before:
        del rotation.store.users[key_id]
    await simulation.reconcile()
    assert rotation.store.users_without_root == before
    assert simulation.condition("ArtifactStoreReady")[0] == "True"


async def test_root_key_changed_in_the_secret_is_reported_with_instructions(
    rotation: RotationSimulation,
) -> None:
    """The store keeps the root key that it read at its start. It is not needed while the server's key works."""
    simulation = rotation.simulation
    users_before = dict(rotation.store.users)
    encoded_key = base64.b64encode(b"changed-manually-123").decode()
    simulation.api.edit(
        "Secret", "a-artifacts", lambda live: live["data"].update(secretAccessKey=encoded_key)
    )
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[0] == "True"
    rotation.store.users = {
        key_id: users_before[key_id]
        for key_id in users_before
        if key_id not in rotation.store.users_without_root
    }
    await simulation.reconcile()
    status, reason, message = simulation.condition("ArtifactStoreReady")
    assert (status, reason) == ("False", "BucketAccessDenied")
    assert (
        'If Secret "a-artifacts" has changed since then, restore its values or delete pod "a-artifacts-0"'
        in message
    )


async def test_rotation_runs_once_per_requested_time(rotation: RotationSimulation) -> None:
    """A completed rotation causes no writes. A later time rotates again; the usernames alternate."""
    simulation = rotation.simulation
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await rotation.reconcile_until_stable()
    before = [*simulation.api.writes]
    await simulation.reconcile()
    assert simulation.api.writes == before
    simulation.now = "2026-01-03T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-02T00:00:00Z")
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow_b"]
    simulation.update_spec(rotateCredentialsAt=None)
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow_b"]


async def test_rotation_resumes_after_operator_crash_at_any_write() -> None:
    """For each N: the process dies after its Nth write. All pods keep access, and the rotation completes."""
    uninterrupted = await start_server()
    writes_before = len(uninterrupted.simulation.api.writes)
    uninterrupted.simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await uninterrupted.reconcile_until_stable()
    count = len(uninterrupted.simulation.api.writes) - writes_before
    assert count >= 6
    for n in range(count):
        rotation = await start_server()
        rotation.simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
        rotation.simulation.api.crash_after_writes = len(rotation.simulation.api.writes) + n
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):
            await rotation.reconcile_until_stable()
        rotation.assert_access()
        rotation.simulation.api.crash_after_writes = None
        await rotation.reconcile_until_stable()
        secret = rotation.simulation.secret("a-database")
        assert rotation.database.logins == {secret["username"]: secret["password"]}, f"crash after write {n}"
        key = rotation.simulation.secret("a-artifacts")
        assert rotation.store.users_without_root == {key["serverAccessKeyID"]: key["serverSecretAccessKey"]}
        assert not any(name.startswith(("next", "previous")) for name in (*secret, *key))


async def test_old_login_is_kept_while_any_pod_uses_it(rotation: RotationSimulation) -> None:
    """A terminating pod counts, because it serves requests until it ends."""
    simulation = rotation.simulation
    inputs = next(iter(rotation.pods))
    metadata = {
        "name": "a-pod-old",
        "namespace": NAMESPACE,
        "labels": labels.for_component(NAME, labels.SERVER_POD),
        "annotations": {labels.INPUTS_DIGEST: inputs},
        "deletionTimestamp": simulation.now,
    }
    simulation.api.put(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}
    )
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow", "mlflow_a"]
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("True", "RotationInProgress")
    assert "The old credentials are revoked afterwards." in message
    del simulation.api.objects[kinds.POD.kind, "a-pod-old"]
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow_a"]
    assert simulation.condition("CredentialsReady")[:2] == ("True", "Ready")


async def test_old_login_is_kept_until_the_deployment_is_rolled(rotation: RotationSimulation) -> None:
    """For example, a migration delays the rollout, and the pods still use the old login."""
    simulation = rotation.simulation
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await simulation.reconcile()
    assert simulation.secret("a-database")["username"] == "mlflow_a"
    simulation.update_spec(image="own/mlflow:9")
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    rotation.assert_access()
    assert [*rotation.database.logins] == ["mlflow", "mlflow_a"]


async def test_unreachable_database_delays_the_rotation(rotation: RotationSimulation) -> None:
    """The error is reported, and the current credentials stay in use."""
    simulation = rotation.simulation
    rotation.database.error = TransientError(Reason.DATABASE_UNREACHABLE, "The database is unreachable.")
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady") == (
        "False",
        "DatabaseUnreachable",
        "The database is unreachable. Credential rotation is waiting for this; the current credentials stay in use.",
    )
    assert simulation.secret("a-database")["username"] == "mlflow"
    next_password = simulation.secret("a-database")["nextPassword"]
    rotation.database.error = None
    await rotation.reconcile_until_stable()
    assert rotation.database.logins == {"mlflow_a": next_password}


async def test_rotation_waits_for_a_future_time(rotation: RotationSimulation) -> None:
    """Nothing is rotated before that time."""
    simulation = rotation.simulation
    simulation.update_spec(rotateCredentialsAt="2026-01-01T12:00:00Z")
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow"]
    simulation.now = "2026-01-01T12:00:30Z"
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow_a"]


async def test_rotation_waits_while_suspended(rotation: RotationSimulation) -> None:
    """The stores are stopped; the rotation runs when they are started again."""
    simulation = rotation.simulation
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT, suspend=True)
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow"]
    simulation.update_spec(suspend=False)
    await rotation.reconcile_until_stable()
    assert [*rotation.database.logins] == ["mlflow_a"]


async def test_credentials_in_user_secrets_are_not_rotated() -> None:
    """The condition message reports it."""
    simulation = await SimulatedCluster.with_external_stores()
    simulation.update_spec(rotateCredentialsAt=REQUESTED_AT)
    await simulation.reconcile_until_stable()
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("True", "Ready")
    assert "The operator does not rotate credentials in Secrets that the spec references" in message
    live = simulation.get("MLflowServer", NAME)
    assert live
    assert "credentialsRotatedAt" not in live["status"]
