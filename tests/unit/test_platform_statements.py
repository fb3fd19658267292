"""No SQL statement, policy or request names a host, bucket, prefix or role outside what a platform allows."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_operator.api import mlflowplatform
from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.minio_admin import MinioAdmin, Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.database import provisioned
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.platform import PlatformUse, resolve_platform
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.server import ProvisionedDatabase, Server
from mlflow_operator.model.versions import Images
from tests.unit.api.platform_refusals import platform
from tests.unit.model.test_platform_random import NAMES, NAMESPACES, database_name, platform_specs, prefix_in
from tests.unit.platform_simulation import CA, ROOT, PlatformMinio, PlatformSimulation
from tests.unit.servers import resource
from tests.unit.simulation import NAME, NAMESPACE

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VERIFIER = "SCRAM-SHA-256$x"
FIXED_LITERALS = {"UTF8", "C", "C.UTF-8", "c", "c.utf-8", "c.utf8", "", "pg_authid", "pg_database"}


class RecordingSessions:
    """Sessions with a Postgres in which the objects of a plan exist, or do not."""

    def __init__(self, plan: provisioning.DatabasePlan, *, exist: bool) -> None:
        self.plan, self.exist = plan, exist
        self.connections: list[Connection] = []
        self.statements: list[tuple[str, tuple[Any, ...]]] = []
        self.info = SimpleNamespace(server_version=170000)
        self.pgconn = SimpleNamespace(encrypt_password=lambda *_: VERIFIER.encode())

    @asynccontextmanager
    async def open(self, connection: Connection, *_: Any) -> AsyncIterator["RecordingSessions"]:
        """Open a session."""
        self.connections.append(connection)
        yield self

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Begin a transaction."""
        yield

    async def execute(self, statement: Any, parameters: tuple[Any, ...] = ()) -> Any:
        """Record a statement and return its rows."""
        text = statement if isinstance(statement, str) else statement.as_string(None)
        self.statements.append((text, parameters))
        row = self._row(statement)

        async def fetchone() -> Any:
            return row

        return SimpleNamespace(fetchone=fetchone)

    def _row(self, statement: Any) -> Any:
        if statement == statements.FIND_ROLE_ATTRIBUTES:
            return (False, True, True)
        if statement == statements.FIND_ROLE_COMMENT:
            return (self.plan.marker,) if self.exist else None
        if statement == statements.FIND_DATABASE:
            return (1, self.plan.marker, self.plan.role) if self.exist else None
        return None


class RecordingRequests:
    """Requests to the admin API of a MinIO without users and policies."""

    def __init__(self) -> None:
        self.sent: list[tuple[Admin, str, dict[str, list[str]], bytes]] = []

    async def send(self, admin: Admin, request: Any, signed_by: AccessKey | None = None) -> tuple[int, bytes]:
        """Record a request."""
        url = urlsplit(request.path)
        command = url.path.rpartition("/")[2]
        self.sent.append((admin, command, parse_qs(url.query), request.body))
        code = {"user-info": "XMinioAdminNoSuchUser", "info-canned-policy": "XMinioAdminNoSuchPolicy"}.get(
            command
        )
        if code:
            # An unknown user cannot sign a request.
            return 404, json.dumps({"Code": "InvalidAccessKeyId" if signed_by else code}).encode()
        return 200, b"{}"


def server_on(spec: Object, namespace: str, name: str) -> Server:
    """The server that uses everything that the platform offers."""
    offered = resolve_platform(
        mlflowplatform.parse({"metadata": {"name": "shared", "uid": "u"}, "spec": spec})
    )
    parsed = resource({}, name)
    parsed = parsed.model_copy(
        update={"metadata": parsed.metadata.model_copy(update={"namespace": namespace})}
    )
    return resolve(parsed, ClusterDefaults(Images()), PlatformUse(offered, offered.parts, "uid-1"))


@settings(SLOW, max_examples=25)
@given(platform_specs(), NAMESPACES, NAMES, st.booleans())
async def test_sql_names_only_the_database_and_roles_of_the_server(
    spec: Object, namespace: str, name: str, exist: bool
) -> None:
    spec = {**platform(), **spec}
    server = server_on(spec, namespace, name)
    database = server.database
    assert isinstance(database, ProvisionedDatabase)
    plan = provisioned.plan(server, database, "cluster-uid")
    sessions = RecordingSessions(plan, exist=exist)
    client = PostgresAdmin(cast("Any", sessions))
    admin = Connection(database.host, database.port, "postgres", "admin", "password")
    login = Login(plan.logins[0], "password")
    await client.provision(admin, None, plan, login, "spec")
    if exist:
        await client.ensure_login(admin, None, plan, Login(plan.logins[1], "password"), "spec")
    await client.delete_login(admin, None, plan, plan.logins[0], "spec")
    await client.deprovision(admin, None, plan, "spec")
    own = database_name(namespace, name)
    roles = {own, f"{own}_a", f"{own}_b"}
    marker = f"mlflow-operator.dev: {namespace}/{name} in namespace uid-1 in cluster cluster-uid"
    for text, parameters in sessions.statements:
        assert {*re.findall('"([^"]*)"', text)} <= roles, text
        assert {*re.findall("'([^']*)'", text)} <= {*roles, marker, VERIFIER, *FIXED_LITERALS}, text
        assert {*parameters} <= roles
        assert "password'" not in text.replace(VERIFIER, "")
    issued = [text for text, _ in sessions.statements]
    assert f'ALTER ROLE "{own}_a" CONNECTION LIMIT {plan.connection_limit}' in issued
    assert f'REVOKE ALL ON DATABASE "{own}" FROM PUBLIC' in issued
    expected = spec["database"]["postgres"]
    for connection in sessions.connections:
        assert (connection.host, connection.port) == (expected["host"], expected.get("port", 5432))
        assert connection.database in {"postgres", own}


@settings(SLOW, max_examples=25)
@given(platform_specs(), NAMESPACES, NAMES)
async def test_policies_and_users_are_those_of_the_server(spec: Object, namespace: str, name: str) -> None:
    spec = {**platform(), **spec}
    server = server_on(spec, namespace, name)
    store, expected = server.artifacts.s3, spec["artifacts"]["s3"]
    assert store
    requests = RecordingRequests()
    client = MinioAdmin(cast("Any", requests))
    admin = Admin(store.endpoint or "", ROOT, None, "the Secret")
    own_policy, user = bucket_policy.name(server.owner, "uid-1"), AccessKey("USER", "user-secret")
    marker = provisioning.marker(server.owner, None, "uid-1")
    await client.ensure_user(
        admin, user, own_policy, bucket_policy.policy(store), Ownership(marker, "shared")
    )
    await client.delete_user(admin, user.id, own_policy)
    await client.delete_policy(admin, own_policy)
    arn = f"arn:aws:s3:::{expected['bucket']}"
    prefix = prefix_in(expected.get("prefix", "{namespace}/{name}"), namespace, name)
    assert {command for _, command, _, _ in requests.sent} >= {"add-canned-policy", "add-user"}
    for sender, command, query, body in requests.sent:
        assert sender.endpoint == expected["endpoint"]
        assert {*query.get("name", ()), *query.get("policyName", ())} <= {
            f"mlflow-operator.{namespace}.{name}.uid-1"
        }
        assert {*query.get("accessKey", ()), *query.get("userOrGroup", ())} <= {user.id}
        if command == "add-canned-policy":
            policy = json.loads(body)
            assert policy["ID"] == f"mlflow-operator.dev: {namespace}/{name} in namespace uid-1"
            for statement in policy["Statement"]:
                assert {*statement["Resource"]} <= {arn, f"{arn}/{prefix}/*"}
                if statement["Resource"] == [arn]:
                    assert statement["Condition"] == {"StringLike": {"s3:prefix": [f"{prefix}/*"]}}


class CheckedMinio(PlatformMinio):
    """The platform's MinIO, which checks the endpoint, the bucket and the prefix of each call."""

    def __init__(self, spec: Object) -> None:
        super().__init__()
        self._endpoint, self._bucket = spec["endpoint"], spec["bucket"]
        prefix = prefix_in(spec.get("prefix", "{namespace}/{name}"), NAMESPACE, NAME)
        self._owners = f"_mlflow-operator/owners/{prefix.replace('/', '!')}/"
        self._prefixes = {f"{prefix}/", self._owners}
        self.calls = 0

    def _check(self, bucket: Bucket) -> None:
        self.calls += 1
        assert (bucket.endpoint, bucket.name) == (self._endpoint, self._bucket)
        assert bucket.key_prefix in self._prefixes
        if bucket.key_prefix == self._owners:
            assert bucket.access_key == self.root.id

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Check the call."""
        self._check(bucket)
        return await super().ensure_bucket(bucket, create)

    async def check_access(self, bucket: Any) -> None:
        """Check the call."""
        self._check(bucket)
        assert bucket.access_key != self.root.id

    async def write_marker(self, bucket: Any, marker: str) -> None:
        """Check the call."""
        self._check(bucket)
        assert bucket.key_prefix == self._owners
        await super().write_marker(bucket, marker)

    async def read_marker(self, bucket: Any) -> str | None:
        """Check the call."""
        self._check(bucket)
        return await super().read_marker(bucket)

    async def has_objects(self, bucket: Any) -> bool:
        """Check the call."""
        self._check(bucket)
        return await super().has_objects(bucket)

    async def delete_objects(self, bucket: Any) -> None:
        """Check the call."""
        self._check(bucket)
        await super().delete_objects(bucket)

    async def apply_settings(self, bucket: Any, settings: Any, rule_id: str, rule: Object | None) -> None:
        """Fail: only the platform applies settings."""
        pytest.fail("a server changes the settings of the shared bucket")


@settings(SLOW, max_examples=10)
@given(platform_specs())
async def test_requests_of_all_components_stay_within_the_prefix(spec: Object) -> None:
    """From the first reconcile over a rotation to the deletion of the data."""
    spec = {**platform(), **spec}
    simulation = PlatformSimulation({"deletionPolicy": "Delete"}, spec)
    simulation.store = simulation.store_admin = simulation.minio = minio = CheckedMinio(
        spec["artifacts"]["s3"]
    )
    values = {"username": "admin", "password": simulation.admin.password, "ca.crt": CA}
    for name in ("postgres-admin", "minio-admin", "ca", "server-database", "server-server"):
        simulation.put_platform_secret(
            name,
            spec["secretsNamespace"],
            accessKeyID=ROOT.id,
            secretAccessKey=ROOT.secret,
            **values,
        )
    await simulation.reconcile_until_ready()
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    await simulation.reconcile_until_ready()
    simulation.delete_server()
    for _ in range(12):
        if simulation.get("MLflowServer", NAME):
            await simulation.reconcile()
            simulation.run_controllers()
    assert simulation.get("MLflowServer", NAME) is None
    assert (minio.users, minio.policies, minio.objects) == ({}, {}, {})
    assert minio.calls
    expected = spec["database"]["postgres"]
    for connection, _ in simulation.admin.admins:
        assert (connection.host, connection.port) == (expected["host"], expected.get("port", 5432))
