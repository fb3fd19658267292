"""A database and a role on a Postgres that many servers share, created by an administrator who is no superuser.

Most tests share one server of two replicas, with a key of its own on a shared MinIO. The last of them deletes it.
"""

import base64
import time

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.model import provisioning
from mlflow_operator.model.secrets import decoded
from mlflow_operator.model.server import ServerRef
from tests.e2e import timeouts
from tests.e2e.certificates import authority
from tests.e2e.external_stores import secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.load import Steady
from tests.e2e.mlflow_workload import Scientist, Work
from tests.e2e.server import Server, eventually, is_ready, restarts, small
from tests.e2e.shared_stores import Platform, make_admin

GROUP = "provisioned"

pytestmark = pytest.mark.start_early

BUCKET = "provisioned"
REPLICAS = 2
DELETED = 90.0
"""Seconds within which a deleted server is gone once nothing blocks its deletion."""


def data(kube: Kube) -> set[str]:
    """Secrets and volume claims in a namespace that the operator created."""
    managed = {"app.kubernetes.io/managed-by": "mlflow-operator"}
    return {
        f"{kind}/{obj['metadata']['name']}"
        for kind in ("PersistentVolumeClaim", "Secret")
        for obj in kube.list(kind, managed)
    }


@pytest.fixture(scope="module")
def _server(module_ns: Kube, _platform: Platform) -> Server:
    admin = administrator(module_ns)
    make_admin(_platform.postgres, admin, "first")
    module_ns.apply(secret("admin", username=admin, password="first"), _platform.certificate())
    tls = {"mode": "VerifyFull", "caSecretRef": {"name": "platform-ca"}}
    return Server(module_ns).apply(
        small(
            replicas=REPLICAS,
            deletionPolicy="Delete",
            database=_platform.provision(adminSecretRef={"name": "admin"}, tls=tls),
            artifacts=_platform.bucket(BUCKET, prefix=module_ns.namespace, versioning="Enabled"),
        )
    )


def administrator(kube: Kube) -> str:
    """A role that may create roles and databases, for one test: what is done to it disturbs no other."""
    return f"admin-{kube.namespace}"


@pytest.fixture
def server(_server: Server, evidence_of_module: None) -> Server:
    """The module's server, Ready, with all its replicas."""
    _server.ready()
    wanted = _server.live()["spec"]["replicas"]
    eventually(f"{wanted} replicas are ready", lambda: len(ready_pods(_server)) == wanted, timeouts.ROLLED)
    return _server


def ready_pods(server: Server) -> dict[str, Object]:
    """The server's pods that take requests, by uid."""
    return {pod["metadata"]["uid"]: pod for pod in server.pods("server") if is_ready(pod)}


@pytest.fixture(scope="module")
def work(_server: Server) -> Work:
    """What was logged at the beginning."""
    return Scientist(_server.ready().url).work()


def test_two_replicas_start_on_an_empty_database_without_a_restart(server: Server, work: Work) -> None:
    """Servers never migrate; of several that do at the same time all but one die. Both replicas know the same data."""
    assert len(server.pods("server")) == REPLICAS
    assert [restarts(pod) for pod in server.pods()] == [0] * len(server.pods())
    budget = server.kube.need("PodDisruptionBudget", server.names.deployment)
    assert budget["status"]["disruptionsAllowed"] == 1
    # new connections are spread at random: enough of them meet both
    for _ in range(6):
        Scientist(server.url).finds(work)


def test_a_provisioned_database_belongs_to_its_server_alone(server: Server, platform: Platform) -> None:
    """Its owner, encoding, connection limit and marker; no other login opens it, and its login opens no other one."""
    ns, query = server.kube, platform.postgres.query
    wanted = provisioning.derived_name(ServerRef("tracking", ns.namespace, ""))
    assert platform.databases(ns) == {wanted}
    assert platform.roles(ns) == {wanted, f"{wanted}_a"}
    held = decoded(ns.need("Secret", server.names.database_secret))
    assert held["username"] == f"{wanted}_a"
    assert held["dbname"] == server.status["database"]["name"] == wanted
    assert server.status["database"]["type"] == "Provision"
    system = ns.within("kube-system").need("Namespace", "kube-system")["metadata"]["uid"]
    marker = f"mlflow-operator.dev: {ns.namespace}/{server.name} in cluster {system}"
    facts = (
        "SELECT pg_encoding_to_char(encoding), pg_get_userbyid(datdba), datconnlimit, "
        "shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    limit = provisioning.connection_limit(REPLICAS, 1)
    assert query(facts, wanted) == f"UTF8|{wanted}|{limit}|{marker}\n"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert query(owners, wanted) == f"{wanted}\n"

    other = f"other-{ns.namespace}"
    platform.make_database(other, "other")
    query(f'REVOKE CONNECT ON DATABASE "{other}" FROM PUBLIC', "postgres")
    for login in (
        f"user={held['username']} password={held['password']} dbname={other}",
        f"user={other} password=other dbname={wanted}",
    ):
        with pytest.raises(CommandError, match="permission denied for database"):
            connect(platform, login)
    query(f'DROP DATABASE "{other}"', "postgres")
    query(f'DROP ROLE "{other}"', "postgres")

    values = [value for found in ns.list("Secret") for value in decoded(found).values()]
    assert not any(platform.admin_password in value for value in values), "a team can read the administrator"


def connect(platform: Platform, login: str) -> None:
    """Opens a database with libpq's keywords. CommandError with what Postgres answered where it does not."""
    # not by the socket or the loopback: there everybody is trusted
    where = f"host={platform.postgres.host} {login}"
    # by standard input, for a password must not be among the node's processes
    psql = ("psql", "-v", "ON_ERROR_STOP=1", "-U", platform.postgres.user, "-d", "postgres", "-f", "-")
    platform.kube.kubectl("exec", "-i", "postgres", "--", *psql, stdin=f'\\connect "{where}"\nSELECT 1;\n')


def test_a_password_changed_in_postgres_is_set_back_without_a_restart(
    server: Server, platform: Platform
) -> None:
    """The Secret's password is the right one."""
    pods = ready_pods(server).keys()
    held = decoded(server.kube.need("Secret", server.names.database_secret))
    platform.postgres.query(f"ALTER ROLE \"{held['username']}\" PASSWORD 'changed'", "postgres")
    login = f"user={held['username']} password={held['password']} dbname={held['dbname']}"

    def opens() -> bool:
        server.look()
        try:
            connect(platform, login)
        except CommandError:
            return False
        return True

    eventually("the Secret's password is the right one again", opens, timeouts.SETTLED)
    assert ready_pods(server).keys() == pods


def test_login_and_key_are_rotated_without_a_failed_request(
    server: Server, platform: Platform, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under two replicas; afterwards the previous ones open nothing."""
    ns, names = server.kube, server.names
    old = [decoded(ns.need("Secret", name)) for name in (names.database_secret, names.artifacts_secret)]
    assert opens(platform, old[1], ns.namespace)
    with Steady(server.url, monkeypatch) as clients:
        server.rotate()
    assert clients.errors == []
    assert clients.done > 50
    new = [decoded(ns.need("Secret", name)) for name in (names.database_secret, names.artifacts_secret)]
    assert old[0]["username"] not in platform.roles(ns)
    assert new[0]["username"] in platform.roles(ns)
    assert not opens(platform, old[1], ns.namespace)
    assert opens(platform, new[1], ns.namespace)
    Scientist(server.url).finds(work)


def opens(platform: Platform, key: dict[str, str], prefix: str) -> bool:
    """Whether a key opens its part of the bucket."""
    client = platform.minio.client(key["accessKeyID"], key["secretAccessKey"])
    try:
        client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    except ClientError:
        return False
    return True


def test_a_lost_secret_gets_another_password_and_new_pods(server: Server, work: Work) -> None:
    """The administrator can set one at any time, so nothing is lost."""
    ns, name, pods = server.kube, server.names.database_secret, ready_pods(server).keys()
    lost = ns.need("Secret", name)["data"]["password"]
    assert base64.b64decode(lost)
    ns.delete("Secret", name)

    def another() -> bool:
        found = ns.get("Secret", name)
        return found is not None and found["data"]["password"] != lost

    eventually("another password is generated", another, timeouts.SETTLED)
    eventually(
        "only new pods are left",
        lambda: not pods & {pod["metadata"]["uid"] for pod in server.pods("server")},
        REPLICAS * timeouts.ROLLED,
    )
    server.ready()
    Scientist(server.url).finds(work)


def test_scaling_to_one_replica_removes_the_disruption_budget(server: Server, work: Work) -> None:
    """By `kubectl scale`, as an autoscaler does it. The replica that is left serves."""
    ns = server.kube
    ns.kubectl("scale", f"mlflowserver/{server.name}", "--replicas=1")
    eventually("one replica is left", lambda: len(server.pods("server")) == 1, timeouts.ROLLED)
    eventually(
        "its budget is gone",
        lambda: not ns.get("PodDisruptionBudget", server.names.deployment),
        timeouts.SETTLED,
    )
    Scientist(server.url).finds(work)


def test_deletion_waits_for_the_administrator_and_leaves_nothing_behind(
    server: Server, platform: Platform
) -> None:
    """The administrator's password changes in Postgres first, and in the Secret a little later."""
    ns, admin = server.kube, administrator(server.kube)
    key = decoded(ns.need("Secret", server.names.artifacts_secret))
    assert opens(platform, key, ns.namespace)
    platform.postgres.query(f"ALTER ROLE \"{admin}\" PASSWORD 'second'")
    ns.kubectl("delete", "mlflowserver", server.name, "--wait=false")
    blocked = server.until("Ready", "False", "DeletionBlocked", within=timeouts.ROLLED)
    assert "refuses the user name or the password" in blocked["message"]
    annotate = f"kubectl annotate mlflowserver -n {ns.namespace} tracking"
    command = f"{annotate} mlflow-operator.dev/skip-data-deletion=true"
    assert command in blocked["message"]

    ns.apply(secret("admin", username=admin, password="second"))
    since = time.monotonic()
    eventually("the server is gone", lambda: ns.get("MLflowServer", server.name) is None, DELETED)
    eventually("its objects are gone", lambda: not data(ns), DELETED - (time.monotonic() - since))
    assert platform.databases(ns) == set()
    assert platform.roles(ns) == set()
    left = platform.minio.client().list_object_versions(Bucket=BUCKET, Prefix=f"{ns.namespace}/")
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")
    assert not opens(platform, key, ns.namespace)
    events = [event for event in ns.list("Event") if event["reason"] == "DataDeleted"]
    assert [event["message"] for event in events] == ["Deleted, its data and passwords with it."]


@pytest.mark.long_running(
    reason="takes minutes; tests/contracts/test_postgres_admin.py and test_postgres_faults.py check each refusal"
)
def test_each_obstacle_to_a_database_is_reported_once(ns: Kube, other_ns: Kube, platform: Platform) -> None:
    """All of them are removed elsewhere, and the resource is never changed."""
    wanted = provisioning.derived_name(ServerRef("tracking", ns.namespace, ""))
    keys = {"accessKeyID": platform.minio.access_key, "secretAccessKey": platform.minio.secret_key}
    ns.apply(secret("keys", **keys), secret("platform-ca", **{"ca.crt": authority("Nobody").pem}))
    admin = administrator(other_ns)
    make_admin(platform.postgres, admin, platform.admin_password)
    where = {"name": "database-admin", "namespace": other_ns.namespace}
    tls = {"mode": "VerifyFull", "caSecretRef": {"name": "platform-ca"}}
    s3 = {
        "endpoint": platform.minio.endpoint,
        "bucket": "obstacles",
        "credentialsSecretRef": {"name": "keys"},
    }
    database = platform.provision(adminSecretRef=where, tls=tls)
    server = Server(ns).apply(small(replicas=0, database=database, artifacts={"s3": s3}))
    faults = Faults(server)
    _permissions(faults, other_ns, platform, admin)
    _obstacles(faults, other_ns, platform, admin, wanted)
    server.until("SchemaReady")
    assert server.live()["metadata"]["generation"] == 1, "the resource was changed"
    assert platform.databases(ns) == {wanted}
    assert platform.roles(ns) == {wanted, f"{wanted}_a"}


def _permissions(faults: Faults, others: Kube, platform: Platform, admin: str) -> None:
    """The certificate is checked first; then the administrator's Secret, from its absence to its use."""
    server, name = faults.server, "database-admin"

    def give(**changed: str) -> None:
        others.apply(platform.database_admin(name, **{"username": admin, **changed}))
        server.look()

    faults.told("DatabaseReady", "DatabaseUnreachable", "certificate that is not trusted", "tls.caSecretRef")
    server.kube.apply(platform.certificate())
    server.look()
    absent = faults.told("DatabaseReady", "ProvisioningDenied", f'"{name}"', "allow-namespaces")
    others.apply(platform.database_admin(name, allow=None, username=admin))
    server.look()
    server.until("DatabaseReady", "False", "ProvisioningDenied", within=timeouts.SETTLED)
    assert server.conditions()["DatabaseReady"]["message"] == absent, "a tenant can tell a Secret from none"

    give(password="wrong")
    faults.told("DatabaseReady", "DatabaseAuthenticationFailed", "spec.database.provision.adminSecretRef")
    for lacking, right in (("CREATEDB", "CREATEROLE"), ("CREATEROLE", "CREATEDB")):
        poor = f"poor-{lacking.lower()}-{server.kube.namespace}"
        make_admin(platform.postgres, poor, "poor", right)
        give(username=poor, password="poor")
        faults.told("DatabaseReady", "ProvisioningDenied", f"the attribute {lacking}", "ALTER ROLE")
        platform.postgres.query(f'DROP ROLE "{poor}"', "postgres")


def _obstacles(faults: Faults, others: Kube, platform: Platform, admin: str, wanted: str) -> None:
    """With the right administrator: limits of the Postgres, and a database that is there already."""
    server, query = faults.server, platform.postgres.query
    query(f'CREATE DATABASE "{wanted}"', "postgres")
    query(f'ALTER ROLE "{admin}" CONNECTION LIMIT 0', "postgres")
    others.apply(platform.database_admin("database-admin", username=admin))
    server.look()
    faults.told("DatabaseReady", "DatabaseUnreachable", "no connection left", "max_connections")
    query(f'ALTER ROLE "{admin}" CONNECTION LIMIT -1', "postgres")
    faults.told("DatabaseReady", "NameConflict", f'a database "{wanted}"', "left alone")
    # Read-only before nothing is in the way any more: otherwise the operator may create the database first.
    query(f'ALTER ROLE "{admin}" SET default_transaction_read_only = on', "postgres")
    query(f'DROP DATABASE "{wanted}"', "postgres")
    server.look()
    faults.told("DatabaseReady", "DatabaseReadOnly", "a standby", "spec.database.provision")
    query(f'ALTER ROLE "{admin}" RESET default_transaction_read_only', "postgres")
    faults.mended("DatabaseReady")
