"""The Postgres and the MinIO that servers share: a database and a prefix for each of them."""

import time
from dataclasses import dataclass

import psycopg
from psycopg import sql
from tests.e2e import stores, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.server import is_ready

from benchmarks.lab import until

USER, PASSWORD = "mlflow", "a-password-of-benchmarks"
TEMPLATE = "migrated"
CONNECTIONS = 400
"""Ten servers hold about a hundred; Postgres' own default ends there."""


@dataclass(frozen=True)
class Stores:
    """Both, in the namespace of `kube`."""

    kube: Kube
    minio: stores.MinIO

    @property
    def host(self) -> str:
        """Postgres, in the cluster."""
        return f"postgres.{self.kube.namespace}.svc"

    def uri(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """For MLflow in the cluster."""
        return f"{scheme}://{USER}:{PASSWORD}@{self.host}:5432/{database}"

    def database(self, name: str, template: str | None = None) -> str:
        """Makes one, empty or as a copy of another."""
        service = self.kube.need("Service", "postgres")
        port = service["spec"]["ports"][0]["nodePort"]
        with _session(self.kube.node_address, port) as session:
            query = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )

            def made() -> bool:
                try:
                    session.execute(query)
                except (
                    psycopg.errors.ObjectInUse
                ):  # somebody, the operator say, looks at what is to be copied
                    return False
                return True

            until(f"database {name} is made", made, timeouts.ANSWERS)
        return name

    def query(self, *statements: str, database: str = "postgres") -> object:
        """The first value of the last answer as the superuser, None where there is none."""
        service = self.kube.need("Service", "postgres")
        port = service["spec"]["ports"][0]["nodePort"]
        with _session(self.kube.node_address, port, database) as session:
            for statement in statements:
                found = session.execute(statement.encode())
                row = found.fetchone() if found.description else None
        return row[0] if row else None

    def drop(self, *databases: str) -> None:
        """Takes them away, whoever is in them."""
        self.query(*(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in databases))

    def secrets(self) -> list[Object]:
        """What a namespace needs whose servers use them."""
        keys = {"accessKeyID": self.minio.access_key, "secretAccessKey": self.minio.secret_key}
        return [
            stores.secret("bench-database", username=USER, password=PASSWORD),
            stores.secret("bench-artifacts", **keys),
        ]

    def spec(self, database: str) -> Object:
        """The part of an MLflowServer's spec that names them."""
        return {
            "database": {
                "external": {
                    "host": self.host,
                    "databaseName": database,
                    "credentialsSecretRef": {"name": "bench-database"},
                }
            },
            "artifacts": {
                "s3": {
                    "endpoint": self.minio.endpoint,
                    "bucket": "bench",
                    "prefix": database,
                    "credentialsSecretRef": {"name": "bench-artifacts"},
                }
            },
        }

    def env(self, database: str) -> list[Object]:
        """The same for a bare server: what artifacts need."""
        return [
            {"name": "MLFLOW_S3_ENDPOINT_URL", "value": self.minio.endpoint},
            {"name": "MLFLOW_ARTIFACTS_DESTINATION", "value": f"s3://bench/{database}"},
            {"name": "AWS_ACCESS_KEY_ID", "value": self.minio.access_key},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": self.minio.secret_key},
        ]


def _session(host: str, port: int, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    """As the superuser. The node's rules for a new Service come a moment after it."""
    deadline = time.monotonic() + timeouts.ANSWERS
    while True:
        try:
            return psycopg.connect(
                host=host, port=port, user=USER, password=PASSWORD, dbname=database, autocommit=True
            )
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def start(kube: Kube) -> Stores:
    """Both, ready, with an empty Postgres."""
    kube.apply(*_postgres(kube.settings.pins["IMAGE_POSTGRES"]))
    minio = stores.minio(kube, None)
    until("Postgres is ready", lambda: is_ready(kube.need("Pod", "postgres")), timeouts.READY)
    return Stores(kube, minio)


def _postgres(image: str) -> list[Object]:
    probe = ["pg_isready", "-h", "127.0.0.1", "-U", USER, "-d", "postgres"]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "postgres", "labels": {"app": "postgres"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
                "containers": [
                    {
                        "name": "postgres",
                        "image": image,
                        "args": ["postgres", "-c", f"max_connections={CONNECTIONS}"],
                        "env": [
                            {"name": "POSTGRES_USER", "value": USER},
                            {"name": "POSTGRES_PASSWORD", "value": PASSWORD},
                            {"name": "POSTGRES_INITDB_ARGS", "value": "--encoding=UTF8 --locale=C.UTF-8"},
                            {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
                        ],
                        "readinessProbe": {"exec": {"command": probe}, "periodSeconds": 1},
                        # without any it gets what others leave over: then it is the database that is measured
                        "resources": {"requests": {"cpu": "25m", "memory": "256Mi"}},
                        "securityContext": stores.SECURITY,
                        "volumeMounts": [
                            {"name": "data", "mountPath": "/var/lib/postgresql/data"},
                            {"name": "run", "mountPath": "/var/run/postgresql"},
                        ],
                    }
                ],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "postgres"},
            "spec": {"type": "NodePort", "selector": {"app": "postgres"}, "ports": [{"port": 5432}]},
        },
    ]
