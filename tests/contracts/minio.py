"""A MinIO to try providers on, and its root's view of it."""

import base64
import secrets
import ssl
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from tests.containers import docker
from tests.e2e.certificates import Authority

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

START_SECONDS = 60
ROOT = AccessKey("rootkey", "p@ss/w:rd?#[]&%2F+ \"'\\$x")
"""Every character that means something somewhere on the way."""

KMS_KEY = "mlflow"
"""The one key that its key management knows."""

FIELD = "spec.artifacts.s3.credentialsSecretRef"
ADMIN_FIELD = "spec.artifacts.s3.adminSecretRef"


_SESSION = boto3.Session()
"""Kept, for it reads 13 MiB of descriptions."""


@dataclass(frozen=True)
class Store:
    """One that runs."""

    endpoint: str
    container: str

    def admin(self, key: AccessKey = ROOT, ca_path: str | None = None) -> Admin:
        """How its administrator speaks to it."""
        return Admin(self.endpoint, key, ca_path, ADMIN_FIELD)

    def bucket(self, name: str, prefix: str = "", key: AccessKey = ROOT, **more: Any) -> Bucket:
        """A bucket as the operator sees it."""
        options: dict[str, Any] = {"endpoint": self.endpoint, "ca_path": None, **more}
        return Bucket(
            region="us-east-1",
            name=name,
            addressing_style="path",
            access_key=key.id,
            secret_key=key.secret,
            field=FIELD,
            prefix=prefix,
            **options,
        )

    def client(self, key: AccessKey = ROOT) -> "S3Client":
        """boto3 as anybody has it."""
        return _SESSION.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )


def start(image: str, ca: Authority | None = None) -> Store:
    """A new one on a free port of loopback, with a certificate of `ca` where there is one; its data goes with it."""
    scheme = "https" if ca else "http"
    with tempfile.TemporaryDirectory() as folder:
        if ca:
            certificate, key = ca.issue("localhost")
            Path(folder, "public.crt").write_text(certificate)
            Path(folder, "private.key").write_text(key)
        Path(folder).chmod(0o755)
        container = docker(
            *("create", "-p", "127.0.0.1::9000"),
            *("-e", f"MINIO_ROOT_USER={ROOT.id}", "-e", f"MINIO_ROOT_PASSWORD={ROOT.secret}"),
            *("-e", f"MINIO_KMS_SECRET_KEY={KMS_KEY}:{base64.b64encode(secrets.token_bytes(32)).decode()}"),
            *(image, "server", "/data", "--certs-dir", "/certificates"),
        )
        docker("cp", folder, f"{container}:/certificates")
    return started(container, 9000, scheme, "/minio/health/ready")


def started(container: str, port: int, scheme: str, path: str) -> Store:
    """A store whose container was made, once it answers at `path`."""
    docker("start", container)
    outside = docker("port", container, f"{port}/tcp").rpartition(":")[2]
    found = Store(f"{scheme}://localhost:{outside}", container)
    try:
        _until_it_answers(found, path)
    except BaseException:
        stop(found)
        raise
    return found


def stop(store: Store) -> None:
    """Away with it."""
    docker("rm", "-f", "-v", store.container)


def _until_it_answers(store: Store, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            with urllib.request.urlopen(f"{store.endpoint}{path}", timeout=5, context=trusting):  # noqa: S310
                return
        except OSError:
            assert time.monotonic() < deadline, docker("logs", store.container)
            time.sleep(0.2)
