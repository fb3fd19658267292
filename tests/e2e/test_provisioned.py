"""A database and a role made on a Postgres that many share, by an administrator who is no superuser."""

import base64

import pytest

from mlflow_operator.core import provisioning
from mlflow_operator.core.credentials import decoded
from mlflow_operator.core.server import Owner
from tests.e2e import timeouts
from tests.e2e.certificates import authority
from tests.e2e.faults import Faults
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.platform import Platform, make_admin
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.stores import secret

ADMIN = "database-admin"


def spec(platform: Platform, administrators: Kube) -> Object:
    """Its database on the platform's Postgres, verified; its bucket on the platform's MinIO, by a key beside it."""
    database = platform.provision(
        adminSecretRef={"name": ADMIN, "namespace": administrators.namespace},
        tls={"mode": "VerifyFull", "caSecretRef": {"name": "platform-ca"}},
    )
    s3 = {
        "endpoint": platform.minio.endpoint,
        "bucket": "provisioned",
        "credentialsSecretRef": {"name": "keys"},
    }
    return small(database=database, artifacts={"s3": s3})


@pytest.mark.timeout(900)
def test_a_database_is_made_once_nothing_is_in_the_way(ns: Kube, other_ns: Kube, platform: Platform) -> None:
    """Each thing that is, is named once; all of it is mended elsewhere, and the resource is never touched."""
    wanted = provisioning.derived_name(Owner("tracking", ns.namespace, ""))
    roles, databases = platform.roles(), platform.databases()
    ns.apply(
        secret("keys", accessKeyID=platform.minio.access_key, secretAccessKey=platform.minio.secret_key),
        secret("platform-ca", **{"ca.crt": authority("Nobody").pem}),
    )
    server = Server(ns).apply(spec(platform, other_ns))
    faults = Faults(server)

    _who_may(faults, other_ns, platform)
    _in_the_way(faults, other_ns, platform, wanted)
    server.ready()
    assert server.live()["metadata"]["generation"] == 1, "somebody has touched the resource"
    assert platform.databases() - databases == {wanted}
    assert platform.roles() - roles == {wanted, f"{wanted}_a"}
    _as_it_should_be(server, platform, wanted)

    scientist = Scientist(server.url)
    work = scientist.work()
    _set_right_again(server, platform, wanted)
    scientist.finds(work)


def _who_may(faults: Faults, others: Kube, platform: Platform) -> None:
    """The certificate comes before who asks; then the administrator's Secret, from not being there to being of use."""
    server, admin = faults.server, platform.database_admin
    faults.told("DatabaseReady", "DatabaseUnreachable", "certificate that is not trusted", "tls.caSecretRef")
    server.kube.apply(platform.certificate())
    server.look()
    absent = faults.told("DatabaseReady", "ProvisioningDenied", f'"{ADMIN}"', "allow-namespaces")
    others.apply(admin(ADMIN, allow=None))
    server.look()
    server.until("DatabaseReady", "False", "ProvisioningDenied", within=timeouts.SETTLED)
    assert server.conditions()["DatabaseReady"]["message"] == absent, "what others hold was given away"

    others.apply(admin(ADMIN, password="wrong"))
    server.look()
    faults.told("DatabaseReady", "DatabaseAuthenticationFailed", "spec.database.provision.adminSecretRef")

    for lacking, right in (("CREATEDB", "CREATEROLE"), ("CREATEROLE", "CREATEDB")):
        poor = f"poor-{lacking.lower()}-{server.kube.namespace}"
        make_admin(platform.postgres, poor, "poor", right)
        others.apply(admin(ADMIN, username=poor, password="poor"))
        server.look()
        faults.told("DatabaseReady", "ProvisioningDenied", f"the attribute {lacking}", "ALTER ROLE")
        platform.postgres.query(f'DROP ROLE "{poor}"', "postgres")


def _in_the_way(faults: Faults, others: Kube, platform: Platform, wanted: str) -> None:
    """With the right administrator; the Postgres is at fault, or somebody else was there first."""
    server, query = faults.server, platform.postgres.query
    query(f'CREATE DATABASE "{wanted}"', "postgres")
    query(f'ALTER ROLE "{platform.admin}" CONNECTION LIMIT 0', "postgres")
    others.apply(platform.database_admin(ADMIN))
    server.look()
    faults.told("DatabaseReady", "DatabaseUnreachable", "no connection left", "max_connections")
    query(f'ALTER ROLE "{platform.admin}" CONNECTION LIMIT -1', "postgres")
    faults.told("DatabaseReady", "NameConflict", f'a database "{wanted}"', "left alone")
    query(f'DROP DATABASE "{wanted}"', "postgres")
    query(f'ALTER ROLE "{platform.admin}" SET default_transaction_read_only = on', "postgres")
    server.look()
    faults.told("DatabaseReady", "DatabaseReadOnly", "a standby", "spec.database.provision")
    query(f'ALTER ROLE "{platform.admin}" RESET default_transaction_read_only', "postgres")
    faults.mended("DatabaseReady")


def _as_it_should_be(server: Server, platform: Platform, wanted: str) -> None:
    held = decoded(server.kube.need("Secret", server.names.database_secret))
    assert held["username"] == f"{wanted}_a"
    assert held["dbname"] == server.status["database"]["name"] == wanted
    assert server.status["database"]["type"] == "Provision"
    system = server.kube.within("kube-system").need("Namespace", "kube-system")["metadata"]["uid"]
    marker = f"mlflow-operator.dev: {server.kube.namespace}/{server.name} in cluster {system}"
    told = (
        "SELECT pg_encoding_to_char(encoding), pg_get_userbyid(datdba), datconnlimit, "
        "shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    limit = provisioning.connection_limit(1, 1)
    assert platform.postgres.query(told, wanted) == f"UTF8|{wanted}|{limit}|{marker}\n"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert platform.postgres.query(owners, wanted) == f"{wanted}\n"

    # neither is another database open to it, nor this one to another
    platform.postgres.query("REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC", "postgres")
    platform.postgres.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'", "postgres")
    for who in (
        f"user={held['username']} password={held['password']} dbname=mlflow",
        f"user=stranger password=stranger dbname={wanted}",
    ):
        with pytest.raises(CommandError, match="permission denied for database"):
            _ask(platform, who)
    platform.postgres.query("DROP ROLE stranger", "postgres")

    secrets = [value for found in server.kube.list("Secret") for value in decoded(found).values()]
    assert not any(platform.admin_password in value for value in secrets), "a team can read the administrator"


def _ask(platform: Platform, who: str) -> None:
    # not by the socket or the loopback: there everybody is trusted
    where = f"host={platform.postgres.host} {who}"
    # by standard input, for nobody may read a password among the node's processes
    psql = ("psql", "-v", "ON_ERROR_STOP=1", "-U", platform.postgres.user, "-d", "postgres", "-f", "-")
    platform.kube.kubectl("exec", "-i", "postgres", "--", *psql, stdin=f'\\connect "{where}"\nSELECT 1;\n')


def _set_right_again(server: Server, platform: Platform, wanted: str) -> None:
    """A password that somebody changed there, and a Secret that somebody lost, are no harm; the data stays."""
    pod = server.pod()["metadata"]["uid"]
    platform.postgres.query(f"ALTER ROLE \"{wanted}_a\" PASSWORD 'changed'", "postgres")
    held = decoded(server.kube.need("Secret", server.names.database_secret))
    who = f"user={wanted}_a password={held['password']} dbname={wanted}"

    def lets_in() -> bool:
        server.look()
        try:
            _ask(platform, who)
        except CommandError:
            return False
        return True

    eventually("the Secret's password is the right one again", lets_in, timeouts.SETTLED)
    assert server.pod()["metadata"]["uid"] == pod

    server.kube.delete("Secret", server.names.database_secret)
    lost = base64.b64encode(held["password"].encode()).decode()

    def another() -> bool:
        found = server.kube.get("Secret", server.names.database_secret)
        return found is not None and found["data"]["password"] != lost

    eventually("another password is made", another, timeouts.SETTLED)
    eventually(
        "pods have it",
        lambda: pod not in {each["metadata"]["uid"] for each in server.pods("server")},
        timeouts.ROLLED,
    )
    server.ready()
