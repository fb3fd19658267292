"""What a platform team runs for many servers: one Postgres and one MinIO, with an administrator for each.

The Postgres' administrator may make roles and databases and is no superuser, as on a managed Postgres. One database is
a template: it holds MLflow's tables at the current revision, so a server on a copy of it needs no migration Job.
"""

from dataclasses import dataclass
from typing import Any

from tests.e2e import certificates, external_stores
from tests.e2e.certificates import Authority, authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, small

ALLOW = "mlflow-operator.dev/allow-namespaces"
"""The annotation by which a Secret lets servers of other namespaces use it."""

TESTS = "e2e-*"
"""All namespaces that tests make."""

DATABASE_ADMIN = "postgres-admin"
STORE_ADMIN = "minio-admin"
"""The administrators' Secrets, in the platform's namespace. All tests' namespaces may use them."""

ADMIN_PASSWORD = "adm!n p@ss/w:rd?#[]&%2F+ \"'\\$x"
"""Unlike the superuser's, so that one is never taken for the other."""


DATABASE_PASSWORD = "worker's own"
"""Of the users that own a server's database."""

TEMPLATE = "mlflow_template"
"""The template database, and the role that owns its tables."""


@dataclass(frozen=True)
class Platform:
    """`postgres` is asked as its superuser and `minio` by its root key; `admin` is who the operator may be."""

    kube: Kube
    postgres: Postgres
    minio: MinIO
    authority: Authority
    admin: str = "platform-admin"
    admin_password: str = ADMIN_PASSWORD

    def provision(self, **more: Any) -> Object:
        """For `spec.database`: a database and a role, made on its Postgres."""
        admin = {"name": DATABASE_ADMIN, "namespace": self.kube.namespace}
        return {"provision": {"host": self.postgres.host, "adminSecretRef": admin, **more}}

    def bucket(self, name: str, **more: Any) -> Object:
        """For `spec.artifacts`: a bucket and a key of the server's own, made on its MinIO."""
        admin = {"name": STORE_ADMIN, "namespace": self.kube.namespace}
        return {
            "s3": {"endpoint": self.minio.endpoint, "bucket": name, "adminSecretRef": admin, **more},
        }

    def database_admin(self, name: str, allow: str | None = TESTS, **changed: str) -> Object:
        """A Secret of the Postgres' administrator, wrong where `changed` says so; `allow` None permits nobody."""
        values = {"username": self.admin, "password": self.admin_password, **changed}
        return permitting(secret(name, **values), allow)

    def store_admin(self, name: str, allow: str | None = TESTS, **changed: str) -> Object:
        """A Secret of the MinIO's administrator, wrong where `changed` says so; `allow` None permits nobody."""
        values = {"accessKeyID": self.minio.access_key, "secretAccessKey": self.minio.secret_key, **changed}
        return permitting(secret(name, **values), allow)

    def certificate(self, name: str = "platform-ca") -> Object:
        """A Secret with the authority that signed the Postgres' certificate."""
        return secret(name, **{"ca.crt": self.authority.pem})

    def make_database(self, name: str, password: str) -> None:
        """An empty database, and a role of the same name that owns it."""
        self._make_role(name, password)
        self.postgres.query(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0', "postgres")

    def make_migrated_database(self, name: str, password: str) -> None:
        """The same with MLflow's tables at the current revision, empty as after the migration Job."""
        self._make_role(name, password)
        self.postgres.query(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE "{TEMPLATE}"', "postgres")
        self.postgres.query(f'REASSIGN OWNED BY "{TEMPLATE}" TO "{name}"', name)

    def _make_role(self, name: str, password: str) -> None:
        quoted = password.replace("'", "''")
        self.postgres.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{quoted}'", "postgres")

    def stores(self, kube: Kube, name: str = "tracking", password: str = DATABASE_PASSWORD) -> Object:
        """For a spec: a migrated database, and a bucket of the server's own whose key the operator makes.

        The Secret with the database's user goes to the namespace of `kube` as `<name>-database`. All three have the
        name of the namespace in theirs: no other test touches them.
        """
        database = f"{kube.namespace}-{name}".replace("-", "_")
        self.make_migrated_database(database, password)
        kube.apply(secret(f"{name}-database", username=database, password=password))
        external = {
            "host": self.postgres.host,
            "databaseName": database,
            "credentialsSecretRef": {"name": f"{name}-database"},
        }
        return {
            "database": {"external": external},
            "artifacts": self.bucket(f"{kube.namespace}-{name}"),
        }

    def databases(self, of: Kube) -> set[str]:
        """Databases with the name of a namespace in theirs."""
        return self._named("SELECT datname FROM pg_database", of)

    def roles(self, of: Kube) -> set[str]:
        """Roles with the name of a namespace in theirs, administrators left out."""
        return self._named("SELECT rolname FROM pg_roles WHERE NOT rolcreaterole", of)

    def _named(self, query: str, of: Kube) -> set[str]:
        return {name for name in self.postgres.query(query).split() if of.namespace in name.replace("_", "-")}

    def facts(self) -> Object:
        """What another process needs to `connect`."""
        postgres, minio, ours = self.postgres, self.minio, self.authority
        return {
            "postgres": [postgres.host, postgres.user, postgres.password],
            "minio": [minio.endpoint, minio.access_key, minio.secret_key],
            "authority": [ours.name, ours.pem, ours.key_pem],
        }


def permitting(obj: Object, namespaces: str | None) -> Object:
    """The Secret, for servers of these namespaces to use."""
    if namespaces is not None:
        obj["metadata"]["annotations"] = {ALLOW: namespaces}
    return obj


def start(kube: Kube) -> Platform:
    """Both, in the namespace of `kube`: Postgres behind TLS, MinIO in plain HTTP, reached from outside, too."""
    ours = authority("Platform Root")
    platform = Platform(kube, external_stores.postgres(kube, ours), external_stores.minio(kube, None), ours)
    make_admin(platform.postgres, platform.admin, platform.admin_password)
    kube.apply(platform.database_admin(DATABASE_ADMIN), platform.store_admin(STORE_ADMIN))
    _make_template(platform)
    return platform


def connect(kube: Kube, facts: Object) -> Platform:
    """The platform that another process started in the namespace of `kube`."""
    return Platform(
        kube,
        Postgres(kube, *facts["postgres"]),
        MinIO(kube, *facts["minio"]),
        certificates.load(*facts["authority"]),
    )


def _make_template(platform: Platform) -> None:
    """The operator migrates it, for a server without pods."""
    kube, query = platform.kube, platform.postgres.query
    platform.make_database(TEMPLATE, TEMPLATE)
    kube.apply(secret("template-database", username=TEMPLATE, password=TEMPLATE))
    external = {
        "host": platform.postgres.host,
        "databaseName": TEMPLATE,
        "credentialsSecretRef": {"name": "template-database"},
    }
    server = Server(kube, "template").apply(
        small(replicas=0, database={"external": external}, artifacts=platform.bucket("template"))
    )
    server.until("SchemaReady")
    server.delete()
    # owned by the superuser, or REASSIGN OWNED in a copy would give the template away, too
    query(f'ALTER DATABASE "{TEMPLATE}" OWNER TO "{platform.postgres.user}"', "postgres")
    # Postgres copies a database only while no session is connected to it
    query(f'ALTER DATABASE "{TEMPLATE}" WITH ALLOW_CONNECTIONS false', "postgres")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    query(ended.format(TEMPLATE), "postgres")


def make_admin(postgres: Postgres, name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> None:
    """A role as a managed Postgres gives it to its customer."""
    postgres.query(admin_statement(name, password, rights), "postgres")


def admin_statement(name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> str:
    """What makes it."""
    quoted = password.replace("'", "''")
    return f"CREATE ROLE \"{name}\" LOGIN NOSUPERUSER {rights} PASSWORD '{quoted}'"
