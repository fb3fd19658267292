"""The Postgres and MinIO that all servers of a run share. Each server has its own database and prefix."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import psycopg
from psycopg import sql
from tests.e2e import timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.server import is_ready

from benchmarks.capacity import Resources
from benchmarks.waits import Waits

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER, PASSWORD = "mlflow", "a-password-of-benchmarks"
ACCESS_KEY, SECRET_KEY = "benchmarks", "a-secret-key-of-benchmarks"
BUCKET = "bench"
TEMPLATE_DATABASE = "migrated"
MAX_CONNECTIONS = 400
"""Ten servers use about 100 connections, which is Postgres' default limit."""

POSTGRES_REQUESTS = {"cpu": "25m", "memory": "256Mi"}
"""Without requests, Postgres would only get the CPU that other pods do not use, and would limit the figures."""

MINIO_REQUESTS = {"cpu": "25m", "memory": "128Mi"}
REQUESTS = Resources.of(POSTGRES_REQUESTS) + Resources.of(MINIO_REQUESTS)
"""Requests of both pods."""


@dataclass(frozen=True)
class Stores:
    """Both stores, in the namespace of `kube`. `databases` are those that `create_database` created."""

    waits: Waits
    kube: Kube
    databases: set[str] = field(default_factory=set)

    @property
    def host(self) -> str:
        """Host of Postgres in the cluster."""
        return f"postgres.{self.kube.namespace}.svc"

    @property
    def endpoint(self) -> str:
        """URL of MinIO, in the cluster and from this machine."""
        return f"http://{self.kube.node_address}:{_node_port(self.kube, 'minio')}"

    def are_ready(self) -> bool:
        """Whether both pods are ready."""
        return all((pod := self.kube.get("Pod", name)) and is_ready(pod) for name in ("postgres", "minio"))

    def uri(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """Return the database URI for MLflow in the cluster."""
        return f"{scheme}://{USER}:{PASSWORD}@{self.host}:5432/{database}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, empty or as a copy of a template."""
        with self._session() as session:
            query = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )

            def created() -> bool:
                try:
                    session.execute(query)
                except psycopg.errors.ObjectInUse:
                    # a database with connections, for example of the operator, cannot be copied
                    return False
                return True

            self.waits.wait_for(f"database {name} is created", created, timeouts.ENDPOINT_SECONDS)
        self.databases.add(name)
        return name

    def query(self, *statements: str, database: str = "postgres") -> object:
        """Run statements as the superuser; returns the first value of the last result, None if there is none."""
        with self._session(database) as session:
            for statement in statements:
                found = session.execute(statement.encode())
                row = found.fetchone() if found.description else None
        return row[0] if row else None

    def existing_databases(self) -> set[str]:
        """Return the names of all databases except templates."""
        with self._session() as session:
            rows = session.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
        return {str(row[0]) for row in rows}

    def drop(self, *databases: str) -> None:
        """Drop databases, and terminate their sessions."""
        self.query(*(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in databases))
        self.databases.difference_update(databases)

    def delete_artifacts(self, prefix: str) -> None:
        """Delete all objects with a prefix in the bucket."""
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
        """Return the Secrets that servers in another namespace need."""
        keys = {"accessKeyID": ACCESS_KEY, "secretAccessKey": SECRET_KEY}
        return [
            secret("bench-database", username=USER, password=PASSWORD),
            secret("bench-artifacts", **keys),
        ]

    def spec(self, database: str) -> Object:
        """Return the part of an MLflowServer's spec with both stores."""
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
        """Return the environment of a plain server with artifacts in this MinIO."""
        return [
            {"name": "MLFLOW_S3_ENDPOINT_URL", "value": self.endpoint},
            {"name": "MLFLOW_ARTIFACTS_DESTINATION", "value": f"s3://{BUCKET}/{database}"},
            {"name": "AWS_ACCESS_KEY_ID", "value": ACCESS_KEY},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": SECRET_KEY},
        ]

    def _session(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Open a session of the superuser. Retries, because a new Service accepts connections with a delay."""
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

        self.waits.wait_for("Postgres accepts a connection", connected, timeouts.ENDPOINT_SECONDS)
        return found[0]


def _node_port(kube: Kube, service: str) -> int:
    return int(kube.require("Service", service)["spec"]["ports"][0]["nodePort"])


def start(waits: Waits, kube: Kube) -> Stores:
    """Start both stores and wait until they are ready. Postgres is empty."""
    pins = kube.settings.pins
    kube.apply(*_postgres(pins["IMAGE_POSTGRES"]), *_minio(pins["IMAGE_MINIO"]))
    shared_stores = Stores(waits, kube)
    waits.wait_for("Postgres and MinIO are ready", shared_stores.are_ready, timeouts.READY_SECONDS)
    return shared_stores


def _postgres(image: str) -> list[Object]:
    probe = ["pg_isready", "-h", "127.0.0.1", "-U", USER, "-d", "postgres"]
    container = {
        "image": image,
        "args": ["postgres", "-c", f"max_connections={MAX_CONNECTIONS}"],
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
    """Return a pod that runs as `user` with writable `folders`, and a NodePort Service."""
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
                    {
                        "name": name,
                        **container,
                        "securityContext": RESTRICTED_SECURITY_CONTEXT,
                        "volumeMounts": mounts,
                    }
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
