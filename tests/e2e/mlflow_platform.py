"""An MLflowPlatform with stores of its own: Postgres and MinIO with certificates of a private authority."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from urllib3.exceptions import InsecureRequestWarning

from tests.e2e import external_stores, timeouts
from tests.e2e.certificates import CertificateAuthority, create_authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.kube import TEST_LABEL, Kube, Object
from tests.e2e.server import API_VERSION, eventually
from tests.e2e.shared_stores import ADMIN_PASSWORD, create_admin

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "mlflow"
DATABASE_ADMIN, STORE_ADMIN, CA = "postgres-admin", "minio-admin", "private-ca"
"""Secrets in the namespace of the platform's stores."""

SELECTOR_LABEL = "e2e/platform"


@dataclass(frozen=True)
class MLflowPlatform:
    """The platform `name`, whose Secrets and stores are in the namespace of `kube`.

    The operator logs in to Postgres as `admin`, who is not a superuser. Tests use the superuser.
    """

    kube: Kube
    name: str
    postgres: Postgres
    minio: MinIO
    authority: CertificateAuthority
    admin: str = "platform-admin"

    def resource(self, *, is_default: bool = True, **spec: Any) -> Object:
        """Return the resource. `spec` replaces fields of its spec."""
        annotations = {"mlflow-operator.dev/is-default-platform": "true"} if is_default else {}
        ca = {"caSecretRef": {"name": CA}}
        stores: Object = {
            "namespaceSelector": {"matchLabels": {SELECTOR_LABEL: self.name}},
            "secretsNamespace": self.kube.namespace,
            "database": {
                "postgres": {
                    "host": self.postgres.host,
                    "adminSecretRef": {"name": DATABASE_ADMIN},
                    "tls": ca,
                }
            },
            "artifacts": {
                "s3": {
                    "endpoint": self.minio.endpoint,
                    "bucket": BUCKET,
                    "adminSecretRef": {"name": STORE_ADMIN},
                    "tls": ca,
                }
            },
            # The tests connect to servers at their NodePorts.
            "policy": {"serviceTypes": ["ClusterIP", "NodePort"]},
        }
        return {
            "apiVersion": API_VERSION,
            "kind": "MLflowPlatform",
            "metadata": {
                "name": self.name,
                "annotations": annotations,
                "labels": {TEST_LABEL: "true"},
            },
            "spec": {**stores, **spec},
        }

    def apply(self, **spec: Any) -> None:
        """Create or change the platform."""
        self.kube.apply(self.resource(**spec))

    def put_admin_secrets(self, database_password: str = ADMIN_PASSWORD) -> None:
        """Create or change the Secrets with the administrators' credentials."""
        self.kube.apply(
            secret(DATABASE_ADMIN, username=self.admin, password=database_password),
            secret(STORE_ADMIN, accessKeyID=self.minio.access_key, secretAccessKey=self.minio.secret_key),
        )

    def select(self, *kubes: Kube) -> None:
        """Label namespaces as the platform's selector requires."""
        for kube in kubes:
            kube.kubectl("label", "namespace", kube.namespace, f"{SELECTOR_LABEL}={self.name}")

    def conditions(self) -> dict[str, Object]:
        """Return the platform's conditions by type."""
        status = self.kube.require("MLflowPlatform", self.name).get("status") or {}
        return {condition["type"]: condition for condition in status.get("conditions") or []}

    def wait_for(self, condition_type: str, status: str = "True", reason: str | None = None) -> Object:
        """Wait for a condition and return it."""

        def found() -> Object | None:
            condition = self.conditions().get(condition_type)
            if condition and condition["status"] == status and reason in (None, condition["reason"]):
                return condition
            return None

        try:
            condition: Object = eventually(
                f"{condition_type}={status} ({reason})", found, timeouts.RESYNC_SECONDS
            )
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.conditions()}") from None
        return condition

    def delete(self, *, wait: bool = True) -> None:
        """Delete the platform."""
        options = ("--ignore-not-found", f"--wait={str(wait).lower()}", "--timeout=60s")
        self.kube.kubectl("delete", "mlflowplatform", self.name, *options)

    def s3(self, access_key: str = "", secret_key: str = "") -> "S3Client":
        """Return an S3 client outside the cluster with this key, by default the root key."""
        port = self.kube.require("Service", "minio")["spec"]["ports"][0]["nodePort"]
        # The certificate is for the Service's name in the cluster.
        warnings.filterwarnings("ignore", category=InsecureRequestWarning)
        return boto3.client(
            "s3",
            endpoint_url=f"https://{self.kube.node_address}:{port}",
            region_name="us-east-1",
            aws_access_key_id=access_key or self.minio.access_key,
            aws_secret_access_key=secret_key or self.minio.secret_key,
            config=Config(retries={"max_attempts": 3}),
            verify=False,
        )

    def keys(self, prefix: str = "") -> set[str]:
        """Return the keys of all objects in the bucket below a prefix."""
        pages: Iterable[Any] = (
            self.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        )
        return {obj["Key"] for page in pages for obj in page.get("Contents", ())}

    def databases(self) -> set[str]:
        """Return the names of all databases."""
        return set(self.postgres.query("SELECT datname FROM pg_database").split())

    def roles(self) -> set[str]:
        """Return the names of all roles."""
        return set(self.postgres.query("SELECT rolname FROM pg_roles").split())


def start(kube: Kube) -> MLflowPlatform:
    """Start the stores in the namespace of `kube`, and create the platform."""
    ca = create_authority("Platform Root")
    postgres, minio = external_stores.start_postgres(kube, ca), external_stores.start_minio(kube, ca)
    kube.patch("Service", "minio", {"spec": {"type": "NodePort"}})
    platform = MLflowPlatform(kube, kube.namespace, postgres, minio, ca)
    create_admin(postgres, platform.admin, ADMIN_PASSWORD)
    kube.apply(secret(CA, **{"ca.crt": ca.pem}))
    platform.put_admin_secrets()
    platform.apply()
    return platform
