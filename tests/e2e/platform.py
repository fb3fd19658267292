"""What a platform team runs for many servers: one Postgres and one MinIO, with an administrator for each.

The Postgres' administrator may make roles and databases and is no superuser, as on a managed Postgres.
"""

from dataclasses import dataclass
from typing import Any

from tests.e2e import stores
from tests.e2e.certificates import Authority, authority
from tests.e2e.kube import Kube, Object
from tests.e2e.stores import MinIO, Postgres, secret

ALLOW = "mlflow-operator.dev/allow-namespaces"
"""The annotation by which a Secret lets servers of other namespaces use it."""

TESTS = "e2e-*"
"""All namespaces that tests make."""

DATABASE_ADMIN = "postgres-admin"
STORE_ADMIN = "minio-admin"
"""The administrators' Secrets, in the platform's namespace. All tests' namespaces may use them."""

ADMIN_PASSWORD = "adm!n p@ss/w:rd?#[]&%2F+ \"'\\$x"
"""Unlike the superuser's, so that one is never taken for the other."""


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
        """A database and a role of the same name that owns it, for servers that are given both."""
        quoted = password.replace("'", "''")
        self.postgres.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{quoted}'", "postgres")
        self.postgres.query(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0', "postgres")

    def databases(self) -> set[str]:
        """Every database but Postgres' own."""
        found = self.postgres.query("SELECT datname FROM pg_database WHERE NOT datistemplate").splitlines()
        return set(found) - {"postgres", "mlflow"}

    def roles(self) -> set[str]:
        """Every role but Postgres' own, the superuser and the administrator."""
        found = self.postgres.query("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'").splitlines()
        return set(found) - {self.postgres.user, self.admin}


def permitting(obj: Object, namespaces: str | None) -> Object:
    """The Secret, for servers of these namespaces to use."""
    if namespaces is not None:
        obj["metadata"]["annotations"] = {ALLOW: namespaces}
    return obj


def start(kube: Kube) -> Platform:
    """Both, in the namespace of `kube`: Postgres behind TLS, MinIO in plain HTTP, reached from outside, too."""
    ours = authority("Platform Root")
    platform = Platform(kube, stores.postgres(kube, ours), stores.minio(kube, None), ours)
    make_admin(platform.postgres, platform.admin, platform.admin_password)
    kube.apply(platform.database_admin(DATABASE_ADMIN), platform.store_admin(STORE_ADMIN))
    return platform


def make_admin(postgres: Postgres, name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> None:
    """A role as a managed Postgres gives it to its customer."""
    postgres.query(admin_statement(name, password, rights), "postgres")


def admin_statement(name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> str:
    """What makes it."""
    quoted = password.replace("'", "''")
    return f"CREATE ROLE \"{name}\" LOGIN NOSUPERUSER {rights} PASSWORD '{quoted}'"
