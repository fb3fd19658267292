"""Shared stores as a platform team runs them for many servers: one Postgres and one MinIO, each with an administrator.

The administrator of Postgres may create roles and databases but is not a superuser, as on a managed Postgres. One
database is a template with MLflow's schema at the current revision: a server on a copy of it needs no migration Job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow_operator.api.mlflowplatform import KIND as PLATFORM_KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.model.server import ServerRef
from tests.e2e import certificates, external_stores
from tests.e2e.certificates import CertificateAuthority, create_authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.kube import TEST_LABEL, Kube, Object
from tests.e2e.server import Server, small_spec

DATABASE_ADMIN_SECRET = "postgres-admin"
STORE_ADMIN_SECRET = "minio-admin"
"""Secrets of the administrators: in the namespace of each server that references them, and in that of the platform."""

ADMIN_PASSWORD = "adm!n p@ss/w:rd?#[]&%2F+ \"'\\$x"
"""Differs from the superuser's password, so that a test cannot confuse the two."""

DATABASE_PASSWORD = "worker's own"
"""Password of the users that own a server's database."""

TEMPLATE_DATABASE = "mlflow_template"
"""Name of the template database and of the role that owns its tables."""


@dataclass(frozen=True)
class Platform:
    """Tests use `postgres` as its superuser and `minio` with its root key; the operator uses the role `admin`."""

    kube: Kube
    postgres: Postgres
    minio: MinIO
    authority: CertificateAuthority
    admin: str = "platform-admin"
    admin_password: str = ADMIN_PASSWORD

    def provision_spec(self, kube: Kube, **more: Any) -> Object:
        """Return a `spec.database` that provisions a database and a role on this Postgres.

        Creates the administrator's Secret in the namespace of `kube`, which is that of the server.
        """
        kube.apply(self.database_admin_secret(DATABASE_ADMIN_SECRET))
        admin = {"name": DATABASE_ADMIN_SECRET}
        return {"provision": {"host": self.postgres.host, "adminSecretRef": admin, **more}}

    def bucket_spec(self, kube: Kube, name: str, **more: Any) -> Object:
        """Return a `spec.artifacts` with a bucket on this MinIO; the operator creates a key for the server.

        Creates the administrator's Secret in the namespace of `kube`, which is that of the server.
        """
        kube.apply(self.store_admin_secret(STORE_ADMIN_SECRET))
        admin = {"name": STORE_ADMIN_SECRET}
        return {
            "s3": {"endpoint": self.minio.endpoint, "bucket": name, "adminSecretRef": admin, **more},
        }

    @contextmanager
    def resource(self, name: str, bucket: str, *tenants: Kube) -> Iterator[Object]:
        """Offer Postgres and the bucket to namespaces as an MLflowPlatform, and yield the part of a spec that uses it.

        It selects no other namespaces, where its policy would apply to the servers of other tests. `name` must be
        unique in the cluster. It is deleted afterwards, as soon as no server uses it any more.
        """
        postgres = {
            "host": self.postgres.host,
            "adminSecretRef": {"name": DATABASE_ADMIN_SECRET},
            "tls": {"caSecretRef": {"name": "platform-ca"}},
        }
        s3 = {
            "endpoint": self.minio.endpoint,
            "bucket": bucket,
            "adminSecretRef": {"name": STORE_ADMIN_SECRET},
        }
        expression = {
            "key": "kubernetes.io/metadata.name",
            "operator": "In",
            "values": [kube.namespace for kube in tenants],
        }
        spec = {
            "namespaceSelector": {"matchExpressions": [expression]},
            "policy": {"serviceTypes": ["ClusterIP", "NodePort"]},
            "secretsNamespace": self.kube.namespace,
            "database": {"postgres": postgres},
            "artifacts": {"s3": s3},
        }
        metadata = {"name": name, "labels": {TEST_LABEL: "true"}}
        self.kube.apply(
            {"apiVersion": API_VERSION, "kind": PLATFORM_KIND, "metadata": metadata, "spec": spec}
        )
        try:
            yield {"platformRef": {"name": name}, "database": {"platform": {}}, "artifacts": {"platform": {}}}
        finally:
            self.kube.kubectl("delete", "mlflowplatform", name, "--wait=false")

    def database_admin_secret(self, name: str, **changed: str) -> Object:
        """Return a Secret with Postgres' administrator; `changed` overrides values."""
        return secret(name, **{"username": self.admin, "password": self.admin_password, **changed})

    def store_admin_secret(self, name: str, **changed: str) -> Object:
        """Return a Secret with MinIO's administrator; `changed` overrides values."""
        values = {"accessKeyID": self.minio.access_key, "secretAccessKey": self.minio.secret_key, **changed}
        return secret(name, **values)

    def ca_secret(self, name: str = "platform-ca") -> Object:
        """Return a Secret with the certificate of the CA that signed Postgres' certificate."""
        return secret(name, **{"ca.crt": self.authority.pem})

    def create_database(self, name: str, password: str) -> None:
        """Create an empty database and a role of the same name that owns it."""
        self._create_role(name, password)
        self.postgres.query(f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE template0', "postgres")

    def create_migrated_database(self, name: str, password: str) -> None:
        """Create a database with MLflow's schema at the current revision and without rows, and its owner."""
        self._create_role(name, password)
        self.postgres.query(
            f'CREATE DATABASE "{name}" OWNER "{name}" TEMPLATE "{TEMPLATE_DATABASE}"', "postgres"
        )
        self.postgres.query(f'REASSIGN OWNED BY "{TEMPLATE_DATABASE}" TO "{name}"', name)

    def _create_role(self, name: str, password: str) -> None:
        quoted = password.replace("'", "''")
        self.postgres.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{quoted}'", "postgres")

    def stores_spec(self, kube: Kube, name: str = "tracking", password: str = DATABASE_PASSWORD) -> Object:
        """Return the part of a spec with a migrated database, and a bucket for which the operator creates a key.

        Creates the Secret with the database's user as `<name>-database` in the namespace of `kube`. The names of
        database, user and bucket contain the namespace, so that no other test uses them.
        """
        database = f"{kube.namespace}-{name}".replace("-", "_")
        self.create_migrated_database(database, password)
        kube.apply(secret(f"{name}-database", username=database, password=password))
        external = {
            "host": self.postgres.host,
            "databaseName": database,
            "credentialsSecretRef": {"name": f"{name}-database"},
        }
        return {
            "database": {"external": external},
            "artifacts": self.bucket_spec(kube, f"{kube.namespace}-{name}"),
        }

    def databases(self, kube: Kube) -> set[str]:
        """Return the databases whose name contains the namespace of `kube`."""
        return self._named("SELECT datname FROM pg_database", kube)

    def roles(self, kube: Kube) -> set[str]:
        """Return the roles whose name contains the namespace of `kube`, without administrators."""
        return self._named("SELECT rolname FROM pg_roles WHERE NOT rolcreaterole", kube)

    def _named(self, query: str, kube: Kube) -> set[str]:
        return {
            name for name in self.postgres.query(query).split() if kube.namespace in name.replace("_", "-")
        }

    def facts(self) -> Object:
        """Return the arguments of `connect` for another process."""
        postgres, minio, ca = self.postgres, self.minio, self.authority
        return {
            "postgres": [postgres.host, postgres.user, postgres.password],
            "minio": [minio.endpoint, minio.access_key, minio.secret_key],
            "authority": [ca.name, ca.pem, ca.key_pem],
        }


def start(kube: Kube) -> Platform:
    """Start both in the namespace of `kube`: Postgres with TLS, MinIO with plain HTTP on a NodePort."""
    ca = create_authority("Platform Root")
    platform = Platform(
        kube, external_stores.start_postgres(kube, ca), external_stores.start_minio(kube, None), ca
    )
    create_admin(platform.postgres, platform.admin, platform.admin_password)
    kube.apply(platform.database_admin_secret(DATABASE_ADMIN_SECRET), platform.ca_secret())
    _create_template(platform)
    return platform


def connect(kube: Kube, facts: Object) -> Platform:
    """Return the platform that another process started in the namespace of `kube`."""
    return Platform(
        kube,
        Postgres(kube, *facts["postgres"]),
        MinIO(kube, *facts["minio"]),
        certificates.load_authority(*facts["authority"]),
    )


def _create_template(platform: Platform) -> None:
    """Create the template database; the operator migrates it for a server with 0 replicas."""
    kube, query = platform.kube, platform.postgres.query
    platform.create_database(TEMPLATE_DATABASE, TEMPLATE_DATABASE)
    kube.apply(secret("template-database", username=TEMPLATE_DATABASE, password=TEMPLATE_DATABASE))
    external = {
        "host": platform.postgres.host,
        "databaseName": TEMPLATE_DATABASE,
        "credentialsSecretRef": {"name": "template-database"},
    }
    server = Server(kube, "template").apply(
        small_spec(
            replicas=0, database={"external": external}, artifacts=platform.bucket_spec(kube, "template")
        )
    )
    server.wait_for("SchemaReady")
    server.delete()
    # owned by the superuser; otherwise REASSIGN OWNED in a copy would also change the template's owner
    query(f'ALTER DATABASE "{TEMPLATE_DATABASE}" OWNER TO "{platform.postgres.user}"', "postgres")
    # Postgres copies a database only while no session is connected to it
    query(f'ALTER DATABASE "{TEMPLATE_DATABASE}" WITH ALLOW_CONNECTIONS false', "postgres")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
    query(ended.format(TEMPLATE_DATABASE), "postgres")


def create_admin(postgres: Postgres, name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> None:
    """Create a role like the one that customers of a managed Postgres get."""
    postgres.query(create_admin_statement(name, password, rights), "postgres")


def create_admin_statement(name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> str:
    """Return the SQL statement that creates an administrator's role."""
    quoted = password.replace("'", "''")
    return f"CREATE ROLE \"{name}\" LOGIN NOSUPERUSER {rights} PASSWORD '{quoted}'"


def policy_name(server: Server) -> str:
    """Return the name of the policy of the server's keys on MinIO."""
    namespace = server.kube.require("Namespace", server.kube.namespace)
    on_platform = "Artifacts" in (server.status.get("platform") or {}).get("parts", ())
    owner = ServerRef(server.name, server.kube.namespace, "")
    return bucket_policy.name(owner, namespace["metadata"]["uid"] if on_platform else None)
