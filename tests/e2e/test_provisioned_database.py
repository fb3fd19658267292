"""A database and a role on a Postgres that many servers share, created by an administrator that is not a superuser.

Most tests share one server with two replicas, whose store is a shared MinIO. The last of these tests deletes it.
"""

import base64
import time

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.model import provisioning
from mlflow_operator.model.secrets import text_values
from mlflow_operator.model.server import ServerRef
from tests.e2e import timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.load import SteadyLoad
from tests.e2e.mlflow_workload import LoggedData, Workload
from tests.e2e.server import Server, eventually, is_ready, restart_count, small_spec
from tests.e2e.shared_stores import Platform, create_admin

GROUP = "provisioned"

pytestmark = pytest.mark.start_early

BUCKET = "provisioned"
REPLICAS = 2
DELETION_TIMEOUT_SECONDS = 90.0
"""Limit for the deletion of a server once nothing blocks it."""


def operator_objects(kube: Kube) -> set[str]:
    """Return the Secrets and volume claims in a namespace that the operator created."""
    managed = {"app.kubernetes.io/managed-by": "mlflow-operator"}
    return {
        f"{kind}/{obj['metadata']['name']}"
        for kind in ("PersistentVolumeClaim", "Secret")
        for obj in kube.list(kind, managed)
    }


@pytest.fixture(scope="module")
def _server(module_ns: Kube, _platform: Platform) -> Server:
    admin = admin_name(module_ns)
    create_admin(_platform.postgres, admin, "first")
    module_ns.apply(secret("admin", username=admin, password="first"), _platform.ca_secret())
    tls = {"mode": "VerifyFull", "caSecretRef": {"name": "platform-ca"}}
    return Server(module_ns).apply(
        small_spec(
            replicas=REPLICAS,
            deletionPolicy="Delete",
            database=_platform.provision_spec(module_ns, adminSecretRef={"name": "admin"}, tls=tls),
            artifacts=_platform.bucket_spec(
                module_ns, BUCKET, prefix=module_ns.namespace, versioning="Enabled"
            ),
        )
    )


def admin_name(kube: Kube) -> str:
    """Return the name of an administrator's role for one test, so that changes to it affect no other test."""
    return f"admin-{kube.namespace}"


@pytest.fixture
def server(_server: Server, module_evidence: None) -> Server:
    """The module's server, Ready and with all replicas."""
    _server.wait_ready()
    replicas = _server.resource()["spec"]["replicas"]
    eventually(
        f"{replicas} replicas are ready",
        lambda: len(ready_pods(_server)) == replicas,
        timeouts.ROLLOUT_SECONDS,
    )
    return _server


def ready_pods(server: Server) -> dict[str, Object]:
    """Return the server's ready pods by uid."""
    return {pod["metadata"]["uid"]: pod for pod in server.pods("server") if is_ready(pod)}


@pytest.fixture(scope="module")
def logged_data(_server: Server) -> LoggedData:
    """The data that was logged first."""
    return Workload(_server.wait_ready().url).log_data()


def test_two_replicas_start_on_an_empty_database_without_a_restart(
    server: Server, logged_data: LoggedData
) -> None:
    """The migration Job migrates, not the servers: if several migrated in parallel, all but one would crash.

    Both replicas serve the same data.
    """
    assert len(server.pods("server")) == REPLICAS
    assert [restart_count(pod) for pod in server.pods()] == [0] * len(server.pods())
    budget = server.kube.require("PodDisruptionBudget", server.names.deployment)
    assert budget["status"]["disruptionsAllowed"] == 1
    # new connections are distributed randomly, so several of them reach both replicas
    for _ in range(6):
        Workload(server.url).check_data(logged_data)


def test_provisioned_database_is_isolated(server: Server, platform: Platform) -> None:
    """Checks its owner, encoding, connection limit and marker. No other login can open it, and its login no other."""
    ns, query = server.kube, platform.postgres.query
    database_name = provisioning.derived_name(ServerRef("tracking", ns.namespace, ""))
    assert platform.databases(ns) == {database_name}
    assert platform.roles(ns) == {database_name, f"{database_name}_a"}
    credentials = text_values(ns.require("Secret", server.names.database_secret))
    assert credentials["username"] == f"{database_name}_a"
    assert credentials["dbname"] == server.status["database"]["name"] == database_name
    assert server.status["database"]["type"] == "Provision"
    system = ns.in_namespace("kube-system").require("Namespace", "kube-system")["metadata"]["uid"]
    marker = f"mlflow-operator.dev: {ns.namespace}/{server.name} in cluster {system}"
    facts = (
        "SELECT pg_encoding_to_char(encoding), pg_get_userbyid(datdba), datconnlimit, "
        "shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    limit = provisioning.connection_limit(REPLICAS, 1)
    assert query(facts, database_name) == f"UTF8|{database_name}|{limit}|{marker}\n"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert query(owners, database_name) == f"{database_name}\n"

    other_name = f"other-{ns.namespace}"
    platform.create_database(other_name, "other")
    query(f'REVOKE CONNECT ON DATABASE "{other_name}" FROM PUBLIC', "postgres")
    for login in (
        f"user={credentials['username']} password={credentials['password']} dbname={other_name}",
        f"user={other_name} password=other dbname={database_name}",
    ):
        with pytest.raises(CommandError, match="permission denied for database"):
            connect(platform, login)
    query(f'DROP DATABASE "{other_name}"', "postgres")
    query(f'DROP ROLE "{other_name}"', "postgres")


def connect(platform: Platform, login: str) -> None:
    """Open a database with libpq's keywords. Raises CommandError with Postgres' error."""
    # not by the socket or loopback, where Postgres trusts every user
    conninfo = f"host={platform.postgres.host} {login}"
    # by standard input, because a password must not be visible in the node's process list
    psql = ("psql", "-v", "ON_ERROR_STOP=1", "-U", platform.postgres.user, "-d", "postgres", "-f", "-")
    platform.kube.kubectl("exec", "-i", "postgres", "--", *psql, stdin=f'\\connect "{conninfo}"\nSELECT 1;\n')


def test_password_changed_in_postgres_is_restored_without_restart(server: Server, platform: Platform) -> None:
    """The Secret has the desired password."""
    pods = ready_pods(server).keys()
    credentials = text_values(server.kube.require("Secret", server.names.database_secret))
    platform.postgres.query(f"ALTER ROLE \"{credentials['username']}\" PASSWORD 'changed'", "postgres")
    login = (
        f"user={credentials['username']} password={credentials['password']} dbname={credentials['dbname']}"
    )

    def opens() -> bool:
        server.trigger_reconcile()
        try:
            connect(platform, login)
        except CommandError:
            return False
        return True

    eventually("the Secret's password works again", opens, timeouts.STATUS_SECONDS)
    assert ready_pods(server).keys() == pods


def test_login_and_key_rotate_without_failed_requests(
    server: Server, platform: Platform, logged_data: LoggedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two replicas. Afterwards the previous credentials are revoked."""
    ns, names = server.kube, server.names
    old = [
        text_values(ns.require("Secret", name)) for name in (names.database_secret, names.artifacts_secret)
    ]
    assert can_list_prefix(platform, old[1], ns.namespace)
    with SteadyLoad(server.url, monkeypatch) as steady_load:
        server.rotate_credentials()
    assert steady_load.errors == []
    assert steady_load.succeeded > 50
    new = [
        text_values(ns.require("Secret", name)) for name in (names.database_secret, names.artifacts_secret)
    ]
    assert old[0]["username"] not in platform.roles(ns)
    assert new[0]["username"] in platform.roles(ns)
    assert not can_list_prefix(platform, old[1], ns.namespace)
    assert can_list_prefix(platform, new[1], ns.namespace)
    Workload(server.url).check_data(logged_data)


def can_list_prefix(platform: Platform, key: dict[str, str], prefix: str) -> bool:
    """Whether a key can list the prefix of the bucket."""
    client = platform.minio.client(key["accessKeyID"], key["secretAccessKey"])
    try:
        client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    except ClientError:
        return False
    return True


def test_deleted_secret_is_recreated_with_a_new_password(server: Server, logged_data: LoggedData) -> None:
    """No data is lost, because the administrator can set a new password at any time."""
    ns, name, pods = server.kube, server.names.database_secret, ready_pods(server).keys()
    previous = ns.require("Secret", name)["data"]["password"]
    assert base64.b64decode(previous)
    ns.delete("Secret", name)

    def is_recreated() -> bool:
        recreated = ns.get("Secret", name)
        return recreated is not None and recreated["data"]["password"] != previous

    eventually("a new password is generated", is_recreated, timeouts.RESYNC_SECONDS)
    eventually(
        "only new pods are left",
        lambda: not pods & {pod["metadata"]["uid"] for pod in server.pods("server")},
        REPLICAS * timeouts.ROLLOUT_SECONDS,
    )
    server.wait_ready()
    Workload(server.url).check_data(logged_data)


def test_scaling_to_one_replica_removes_the_disruption_budget(
    server: Server, logged_data: LoggedData
) -> None:
    """By `kubectl scale`, like an autoscaler does. The remaining replica serves."""
    ns = server.kube
    ns.kubectl("scale", f"mlflowserver/{server.name}", "--replicas=1")
    eventually("one replica is left", lambda: len(server.pods("server")) == 1, timeouts.ROLLOUT_SECONDS)
    eventually(
        "its budget is gone",
        lambda: not ns.get("PodDisruptionBudget", server.names.deployment),
        timeouts.STATUS_SECONDS,
    )
    Workload(server.url).check_data(logged_data)


def test_deletion_waits_for_the_administrator_and_deletes_everything(
    server: Server, platform: Platform
) -> None:
    """The administrator's password is changed in Postgres first, and in the Secret later."""
    ns, admin = server.kube, admin_name(server.kube)
    key = text_values(ns.require("Secret", server.names.artifacts_secret))
    assert can_list_prefix(platform, key, ns.namespace)
    platform.postgres.query(f"ALTER ROLE \"{admin}\" PASSWORD 'second'")
    ns.kubectl("delete", "mlflowserver", server.name, "--wait=false")
    blocked = server.wait_for("Ready", "False", "DeletionBlocked", within=timeouts.ROLLOUT_SECONDS)
    assert "rejects the user name or the password" in blocked["message"]
    annotate = f"kubectl annotate mlflowserver -n {ns.namespace} tracking"
    command = f"{annotate} mlflow-operator.dev/skip-data-deletion=true"
    assert command in blocked["message"]

    ns.apply(secret("admin", username=admin, password="second"))
    since = time.monotonic()
    eventually(
        "the server is gone", lambda: ns.get("MLflowServer", server.name) is None, DELETION_TIMEOUT_SECONDS
    )
    eventually(
        "its objects are gone",
        lambda: not operator_objects(ns),
        DELETION_TIMEOUT_SECONDS - (time.monotonic() - since),
    )
    assert platform.databases(ns) == set()
    assert platform.roles(ns) == set()
    versions = platform.minio.client().list_object_versions(Bucket=BUCKET, Prefix=f"{ns.namespace}/")
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")
    assert not can_list_prefix(platform, key, ns.namespace)
    # The operator publishes the Event again if the removal of the finalizer fails.
    messages = {event["message"] for event in ns.list("Event") if event["reason"] == "DataDeleted"}
    assert messages == {"Deleted the server, its data and its passwords."}


@pytest.mark.long_running(
    reason="takes minutes; tests/contracts/test_postgres_admin.py and test_postgres_errors.py check each error"
)
def test_provisioning_faults_are_reported_once(ns: Kube, platform: Platform) -> None:
    """All of them are fixed at their cause, and the resource is never changed."""
    database_name = provisioning.derived_name(ServerRef("tracking", ns.namespace, ""))
    keys = {"accessKeyID": platform.minio.access_key, "secretAccessKey": platform.minio.secret_key}
    ns.apply(
        secret("keys", **keys), secret("platform-ca", **{"ca.crt": create_authority("Another Root").pem})
    )
    admin = admin_name(ns)
    create_admin(platform.postgres, admin, platform.admin_password)
    tls = {"mode": "VerifyFull", "caSecretRef": {"name": "platform-ca"}}
    s3 = {
        "endpoint": platform.minio.endpoint,
        "bucket": "obstacles",
        "credentialsSecretRef": {"name": "keys"},
    }
    database = platform.provision_spec(ns, adminSecretRef={"name": "database-admin"}, tls=tls)
    server = Server(ns).apply(small_spec(replicas=0, database=database, artifacts={"s3": s3}))
    faults = FaultExpectations(server)
    _check_administrator_faults(faults, platform, admin)
    _check_postgres_faults(faults, platform, admin, database_name)
    server.wait_for("SchemaReady")
    assert server.resource()["metadata"]["generation"] == 1, "the resource was changed"
    assert platform.databases(ns) == {database_name}
    assert platform.roles(ns) == {database_name, f"{database_name}_a"}


def _check_administrator_faults(faults: FaultExpectations, platform: Platform, admin: str) -> None:
    """The certificate is checked first, then the administrator's Secret: missing, wrong, insufficient."""
    server, name = faults.server, "database-admin"

    def apply_admin_secret(**changed: str) -> None:
        server.kube.apply(platform.database_admin_secret(name, **{"username": admin, **changed}))
        server.trigger_reconcile()

    faults.expect(
        "DatabaseReady", "DatabaseUnreachable", "certificate that is not trusted", "tls.caSecretRef"
    )
    server.kube.apply(platform.ca_secret())
    server.trigger_reconcile()
    faults.expect("DatabaseReady", "SecretNotFound", f'"{name}"', "MLflowPlatform")
    apply_admin_secret(password="wrong")
    faults.expect("DatabaseReady", "DatabaseAuthenticationFailed", "spec.database.provision.adminSecretRef")
    for missing, granted in (("CREATEDB", "CREATEROLE"), ("CREATEROLE", "CREATEDB")):
        role = f"without-{missing.lower()}-{server.kube.namespace}"
        create_admin(platform.postgres, role, "secret", granted)
        apply_admin_secret(username=role, password="secret")
        faults.expect("DatabaseReady", "ProvisioningDenied", f"the attribute {missing}", "ALTER ROLE")
        platform.postgres.query(f'DROP ROLE "{role}"', "postgres")


def _check_postgres_faults(
    faults: FaultExpectations, platform: Platform, admin: str, database_name: str
) -> None:
    """With a valid administrator: connection limits, an existing database with the same name, a read-only server."""
    server, query = faults.server, platform.postgres.query
    query(f'CREATE DATABASE "{database_name}"', "postgres")
    query(f'ALTER ROLE "{admin}" CONNECTION LIMIT 0', "postgres")
    server.kube.apply(platform.database_admin_secret("database-admin", username=admin))
    server.trigger_reconcile()
    faults.expect("DatabaseReady", "DatabaseUnreachable", "no free connections", "max_connections")
    query(f'ALTER ROLE "{admin}" CONNECTION LIMIT -1', "postgres")
    faults.expect("DatabaseReady", "NameConflict", f'a database "{database_name}"', "does not modify it")
    # Make it read-only before the database is dropped: otherwise the operator may create the database first.
    query(f'ALTER ROLE "{admin}" SET default_transaction_read_only = on', "postgres")
    query(f'DROP DATABASE "{database_name}"', "postgres")
    server.trigger_reconcile()
    faults.expect("DatabaseReady", "DatabaseReadOnly", "a standby", "spec.database.provision")
    query(f'ALTER ROLE "{admin}" RESET default_transaction_read_only', "postgres")
    faults.expect_recovery("DatabaseReady")
