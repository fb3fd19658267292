"""A simulated cluster with an MLflowPlatform, whose Postgres and MinIO check who owns what they contain."""

import base64
from dataclasses import replace
from typing import Any

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.clients.s3 import bucket_policy, minio_errors
from mlflow_operator.clients.s3.minio_admin import Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.api.platform_refusals import platform
from tests.unit.simulation import (
    NAME,
    NAMESPACE,
    FakeObjectStore,
    FakePostgres,
    FakePostgresAdmin,
    FakeStoreAdmin,
    SimulatedCluster,
)

PLATFORM, PLATFORM_NAMESPACE = "shared", "mlflow-platform"
SELECTED = {"example.com/tracking": "true"}
"""Labels of a namespace that the platform selects."""
CA = "-----BEGIN CERTIFICATE-----"
ROOT = AccessKey("root", "root-secret-key")
MARKER = "zzz-made-by-mlflow-operator"


class PlatformPostgresAdmin(FakePostgresAdmin):
    """The administrator of the platform's Postgres. `admins` are the connections with its credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.admins: list[tuple[Connection, str | None]] = []

    async def provision(
        self,
        admin: Connection,
        ca_path: str | None,
        plan: DatabasePlan,
        login: Login,
        field: str,
        *,
        create: bool = True,
    ) -> None:
        """Behave like the client, with the marker of the one database."""
        self.admins.append((admin, ca_path))
        if self.database and not plan.owns(self.database.marker):
            raise provisioning.adoption_required("The role", plan.marker, plan.platform)
        await super().provision(admin, ca_path, plan, login, field, create=create)

    async def deprovision(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, field: str
    ) -> None:
        """Behave like the client, with the marker of the one database."""
        self.admins.append((admin, ca_path))
        if self.database and not plan.owns(self.database.marker):
            raise provisioning.adoption_required("The role", plan.marker, plan.platform)
        await super().deprovision(admin, ca_path, plan, field)


class PlatformPostgres(FakePostgres):
    """The database of the server on the platform's Postgres, which only provisioned logins can connect to."""

    def __init__(self, admin: PlatformPostgresAdmin) -> None:
        super().__init__()
        self.admin = admin

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
        plan = self.admin.database
        state = await super().inspect(
            connection, ca_path, field, expected_revision, administrator=administrator
        )
        if connection.host.startswith(f"{NAME}-postgres."):
            return state  # the embedded database
        if plan is None or self.admin.logins.get(connection.username) != connection.password:
            raise from_psycopg(Exception("password authentication failed"), connection.address, field)
        limit = plan.connection_limit
        return replace(
            state,
            owner=plan.role,
            connection_limit=limit,
            login_connection_limit=limit,
            comment=plan.marker,
        )


class PlatformMinio(FakeObjectStore, FakeStoreAdmin):
    """The platform's MinIO: the objects of one bucket, users, and policies.

    `endpoints` were sent the root key `root`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, str] = {}
        self.users: dict[str, str] = {}
        self.policy_of_user: dict[str, str] = {}
        self.policies: dict[str, Object] = {}
        self.endpoints: set[str | None] = set()
        self.root = ROOT
        self.encryption = ""
        """Arguments of uploads that the platform configures."""

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Succeed for the root key and the keys of users."""
        await super().ensure_bucket(bucket, create)
        if _is_embedded(bucket.endpoint):
            return False
        key = AccessKey(bucket.access_key, bucket.secret_key)
        if key == self.root:
            self.endpoints.add(bucket.endpoint)
        elif not self.has_access(key):
            raise ConfigurationError(Reason.BUCKET_ACCESS_DENIED, "The store does not know the key.")
        return False

    def has_access(self, key: AccessKey) -> bool:
        """Whether a user has this key, and a policy that allows anything."""
        policy = self.policies.get(self.policy_of_user.get(key.id, ""))
        return (
            policy is not None
            and self.users.get(key.id) == key.secret
            and not bucket_policy.is_revoked(policy)
        )

    async def write_marker(self, bucket: Any, marker: str) -> None:
        """Behave like the client."""
        assert (bucket.access_key, bucket.upload_arguments) == (self.root.id, self.encryption)
        if not await self.has_objects(bucket):
            self.objects[f"{bucket.key_prefix}{MARKER}"] = marker

    async def read_marker(self, bucket: Any) -> str | None:
        """Behave like the client."""
        return self.objects.get(f"{bucket.key_prefix}{MARKER}")

    async def has_objects(self, bucket: Any) -> bool:
        """Behave like the client."""
        return any(key.startswith(bucket.key_prefix) for key in self.objects)

    async def delete_objects(self, bucket: Any) -> None:
        """Behave like the client."""
        assert bucket.key_prefix
        self.objects = {
            key: body for key, body in self.objects.items() if not key.startswith(bucket.key_prefix)
        }

    async def ensure_user(
        self,
        admin: Admin,
        user: AccessKey,
        policy_name: str,
        policy: Object,
        ownership: Ownership | None = None,
    ) -> None:
        """Behave like the client."""
        if _is_embedded(admin.endpoint):
            return
        if admin.key != self.root:
            raise ConfigurationError(Reason.PROVISIONING_DENIED, "The store does not know the administrator.")
        assert ownership
        overlapping = bucket_policy.overlapping_policies(self.policies, policy_name, policy)
        earlier = {other for other in overlapping if bucket_policy.is_of_same_name(other, policy_name)}
        if earlier and not ownership.adopts:
            raise provisioning.adoption_required("The policy", ownership.marker, ownership.platform)
        if {*overlapping} - earlier:
            raise minio_errors.policy_overlap(admin, min({*overlapping} - earlier))
        for other in earlier:
            self.policies[other] = bucket_policy.revoked(self.policies[other])
        self.users[user.id] = user.secret
        self.policy_of_user[user.id] = policy_name
        for other in earlier - {*self.policy_of_user.values()}:
            del self.policies[other]
        self.policies[policy_name] = {"ID": ownership.marker, **policy}

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Behave like the client."""
        self.users.pop(access_key_id, None)

    async def overlapping_policy(self, admin: Admin, policy_name: str, policy: Object) -> str | None:
        """Behave like the client."""
        return bucket_policy.overlapping_policy(self.policies, policy_name, policy)

    async def delete_policy(self, admin: Admin, policy_name: str) -> None:
        """Behave like the client."""
        self.policies.pop(policy_name, None)


def _is_embedded(endpoint: str | None) -> bool:
    """Whether this is the endpoint of the server's embedded store."""
    return bool(endpoint and f"//{NAME}-artifacts." in endpoint)


class PlatformSimulation(SimulatedCluster):
    """A cluster with a platform, by default the default platform of the server's namespace.

    With `platform_spec` None there is no platform.
    """

    def __init__(
        self, spec: Object | None = None, platform_spec: Object | None = None, *, is_default: bool = True
    ) -> None:
        super().__init__(spec)
        self.postgres_admin = self.admin = PlatformPostgresAdmin()
        self.postgres = PlatformPostgres(self.admin)
        self.store = self.store_admin = self.minio = PlatformMinio()
        self.recreate_namespace(NAMESPACE + "-1")
        self.put_platform_secret("postgres-admin", username="admin", password=self.admin.password)
        self.put_platform_secret("minio-admin", accessKeyID=ROOT.id, secretAccessKey=ROOT.secret)
        self.put_platform_secret("ca", **{"ca.crt": CA})
        self.put_platform(platform_spec or platform(), is_default=is_default)

    def put_platform(self, spec: Object, name: str = PLATFORM, *, is_default: bool = True) -> None:
        """Create or replace a platform as a cluster administrator."""
        annotations = {DEFAULT_ANNOTATION: "true"} if is_default else {}
        metadata = {"name": name, "uid": f"platform-{name}", "annotations": annotations}
        existing = self.api.objects.get((KIND, name), {})
        self.api.put(
            {**existing, "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
        )

    def delete_platform(self, name: str = PLATFORM) -> None:
        """Delete a platform."""
        del self.api.objects[KIND, name]

    def put_platform_secret(self, name: str, namespace: str = PLATFORM_NAMESPACE, **values: str) -> None:
        """Create or replace a Secret of the platform."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
        metadata = {"name": name, "namespace": namespace}
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    def recreate_namespace(self, uid: str, labels: dict[str, str] | None = None) -> None:
        """Create the namespace of the server with another uid."""
        metadata = {"name": NAMESPACE, "uid": uid, "labels": SELECTED if labels is None else labels}
        self.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def covered(self) -> set[str]:
        """Resources that the policy of the server's key covers."""
        policy = self.policy()
        return {resource for statement in policy["Statement"] for resource in statement["Resource"]}

    def policy(self) -> Object:
        """The policy of the server's key: the only one of its name that allows anything."""
        own_name = bucket_policy.name(self.owner)
        (found,) = (
            policy
            for name, policy in self.minio.policies.items()
            if bucket_policy.is_of_same_name(name, own_name) and not bucket_policy.is_revoked(policy)
        )
        return found

    @property
    def owner(self) -> ServerRef:
        """The reference to the server."""
        return ServerRef(NAME, NAMESPACE, "")
