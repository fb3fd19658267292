"""The Postgres and the MinIO that all servers of a run share: each server has a database and a prefix of its own."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import psycopg
from psycopg import sql
from tests.e2e import timeouts
from tests.e2e.external_stores import SECURITY, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import is_ready

from benchmarks.capacity import Resources
from benchmarks.waits import Waits

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER, PASSWORD = "mlflow", "a-password-of-benchmarks"
ACCESS_KEY, SECRET_KEY = "benchmarks", "a-secret-key-of-benchmarks"
BUCKET = "bench"
TEMPLATE = "migrated"
CONNECTIONS = 400
"""Ten servers hold about a hundred connections, which is the default limit of Postgres."""

POSTGRES_REQUESTS = {"cpu": "25m", "memory": "256Mi"}
"""Without requests Postgres would get only the CPU that others leave, and a figure would measure the database."""

MINIO_REQUESTS = {"cpu": "25m", "memory": "128Mi"}
REQUESTS = Resources.of(POSTGRES_REQUESTS) + Resources.of(MINIO_REQUESTS)
"""Of both pods."""


@dataclass(frozen=True)
class Stores:
    """Both, in the namespace of `kube`. `databases` are those that were created by `database`."""

    waits: Waits
    kube: Kube
    databases: set[str] = field(default_factory=set)

    @property
    def host(self) -> str:
        """Host of Postgres within the cluster."""
        return f"postgres.{self.kube.namespace}.svc"

    @property
    def endpoint(self) -> str:
        """URL of MinIO, within the cluster and from this machine."""
        return f"http://{self.kube.node_address}:{_node_port(self.kube, 'minio')}"

    def ready(self) -> bool:
        """Whether both pods are ready."""
        return all((pod := self.kube.get("Pod", name)) and is_ready(pod) for name in ("postgres", "minio"))

    def uri(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """URI for MLflow in the cluster."""
        return f"{scheme}://{USER}:{PASSWORD}@{self.host}:5432/{database}"

    def database(self, name: str, template: str | None = None) -> str:
        """Creates a database, empty or as a copy of another one."""
        with self._session() as session:
            query = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )

            def created() -> bool:
                try:
                    session.execute(query)
                except psycopg.errors.ObjectInUse:
                    # a database with connections, of the operator for example, cannot be copied
                    return False
                return True

            self.waits.until(f"database {name} is created", created, timeouts.ANSWERS)
        self.databases.add(name)
        return name

    def query(self, *statements: str, database: str = "postgres") -> object:
        """The first value of the last statement's result as the superuser, None if there is none."""
        with self._session(database) as session:
            for statement in statements:
                found = session.execute(statement.encode())
                row = found.fetchone() if found.description else None
        return row[0] if row else None

    def existing_databases(self) -> set[str]:
        """Names of all databases except templates."""
        with self._session() as session:
            rows = session.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
        return {str(row[0]) for row in rows}

    def drop(self, *databases: str) -> None:
        """Drops databases; sessions that use them are terminated."""
        self.query(*(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in databases))
        self.databases.difference_update(databases)

    def delete_artifacts(self, prefix: str) -> None:
        """Deletes all objects below a prefix of the bucket."""
        s3 = self._client()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
            for found in page.get("Contents", []):
                s3.delete_object(Bucket=BUCKET, Key=found["Key"])

    def _client(self) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def secrets(self) -> list[Object]:
        """The Secrets that servers in another namespace need."""
        keys = {"accessKeyID": ACCESS_KEY, "secretAccessKey": SECRET_KEY}
        return [
            secret("bench-database", username=USER, password=PASSWORD),
            secret("bench-artifacts", **keys),
        ]

    def spec(self, database: str) -> Object:
        """The part of an MLflowServer's spec that names both stores."""
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
                    "endpoint": self.endpoint,
                    "bucket": BUCKET,
                    "prefix": database,
                    "credentialsSecretRef": {"name": "bench-artifacts"},
                }
            },
        }

    def env(self, database: str) -> list[Object]:
        """The environment of a plain server that keeps its artifacts here."""
        return [
            {"name": "MLFLOW_S3_ENDPOINT_URL", "value": self.endpoint},
            {"name": "MLFLOW_ARTIFACTS_DESTINATION", "value": f"s3://{BUCKET}/{database}"},
            {"name": "AWS_ACCESS_KEY_ID", "value": ACCESS_KEY},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": SECRET_KEY},
        ]

    def _session(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A session of the superuser. A new Service accepts connections only a moment after its creation."""
        port = _node_port(self.kube, "postgres")
        found: list[psycopg.Connection[tuple[object, ...]]] = []

        def connected() -> bool:
            try:
                session = psycopg.connect(
                    host=self.kube.node_address,
                    port=port,
                    user=USER,
                    password=PASSWORD,
                    dbname=database,
                    autocommit=True,
                    connect_timeout=10,
                )
            except psycopg.OperationalError:
                return False
            found.append(session)
            return True

        self.waits.until("Postgres accepts a connection", connected, timeouts.ANSWERS)
        return found[0]


def _node_port(kube: Kube, service: str) -> int:
    return int(kube.need("Service", service)["spec"]["ports"][0]["nodePort"])


def start(waits: Waits, kube: Kube) -> Stores:
    """Starts both and waits until they are ready; Postgres is empty."""
    pins = kube.settings.pins
    kube.apply(*_postgres(pins["IMAGE_POSTGRES"]), *_minio(pins["IMAGE_MINIO"]))
    found = Stores(waits, kube)
    waits.until("Postgres and MinIO are ready", found.ready, timeouts.READY)
    return found


def _postgres(image: str) -> list[Object]:
    probe = ["pg_isready", "-h", "127.0.0.1", "-U", USER, "-d", "postgres"]
    container = {
        "image": image,
        "args": ["postgres", "-c", f"max_connections={CONNECTIONS}"],
        "env": [
            {"name": "POSTGRES_USER", "value": USER},
            {"name": "POSTGRES_PASSWORD", "value": PASSWORD},
            {"name": "POSTGRES_INITDB_ARGS", "value": "--encoding=UTF8 --locale=C.UTF-8"},
            {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
        ],
        "readinessProbe": {"exec": {"command": probe}, "periodSeconds": 1},
        "resources": {"requests": POSTGRES_REQUESTS},
    }
    return _pod("postgres", 5432, 999, container, ["/var/lib/postgresql/data", "/var/run/postgresql"])


def _minio(image: str) -> list[Object]:
    container = {
        "image": image,
        "args": ["server", "/data"],
        "env": [
            {"name": "MINIO_ROOT_USER", "value": ACCESS_KEY},
            {"name": "MINIO_ROOT_PASSWORD", "value": SECRET_KEY},
            {"name": "HOME", "value": "/data"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/minio/health/ready", "port": 9000},
            "periodSeconds": 1,
        },
        "resources": {"requests": MINIO_REQUESTS, "limits": {"memory": "2Gi"}},
    }
    return _pod("minio", 9000, 10001, container, ["/data"])


def _pod(name: str, port: int, user: int, container: Object, folders: list[str]) -> list[Object]:
    """A pod that runs as `user` and may write to `folders`, and a Service with a NodePort."""
    mounts = [{"name": f"data-{index}", "mountPath": path} for index, path in enumerate(folders)]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
                "containers": [
                    {"name": name, **container, "securityContext": SECURITY, "volumeMounts": mounts}
                ],
                "volumes": [{"name": mount["name"], "emptyDir": {}} for mount in mounts],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": port}]},
        },
    ]
