"""A MinIO in a container, and access to it as root."""

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
from tests.e2e.certificates import CertificateAuthority

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

START_TIMEOUT_SECONDS = 60
ROOT_KEY = AccessKey("rootkey", "p@ss/w:rd?#[]&%2F+ \"'\\$x")
"""Contains every character that needs escaping somewhere."""

KMS_KEY = "mlflow"
"""The only key in the key management service (KMS) of the store."""

FIELD = "spec.artifacts.s3.credentialsSecretRef"
ADMIN_FIELD = "spec.artifacts.s3.adminSecretRef"


_SESSION = boto3.Session()
"""Shared, because a session loads 13 MiB of service descriptions."""


@dataclass(frozen=True)
class Store:
    """A running store."""

    endpoint: str
    container: str

    def admin(self, key: AccessKey = ROOT_KEY, ca_path: str | None = None) -> Admin:
        """The store with an administrator's key, by default root's."""
        return Admin(self.endpoint, key, ca_path, ADMIN_FIELD)

    def bucket(self, name: str, prefix: str = "", key: AccessKey = ROOT_KEY, **changes: Any) -> Bucket:
        """A bucket in the form that the operator uses."""
        options: dict[str, Any] = {"endpoint": self.endpoint, "ca_path": None, **changes}
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

    def assume_role(self, key: AccessKey) -> tuple[AccessKey, str]:
        """Request temporary credentials, with their session token, for the user of `key`."""
        sts = _SESSION.client(
            "sts",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
        )
        found = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/any", RoleSessionName="any")[
            "Credentials"
        ]
        return AccessKey(found["AccessKeyId"], found["SecretAccessKey"]), found["SessionToken"]

    def client(self, key: AccessKey = ROOT_KEY, session_token: str | None = None) -> "S3Client":
        """An ordinary boto3 client."""
        return _SESSION.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            aws_session_token=session_token,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )


def start(image: str, ca: CertificateAuthority | None = None) -> Store:
    """Start a new store on a free port of loopback. With `ca` it uses TLS. Its data is deleted with the container."""
    scheme = "https" if ca else "http"
    with tempfile.TemporaryDirectory() as folder:
        if ca:
            certificate, key = ca.issue("localhost")
            Path(folder, "public.crt").write_text(certificate)
            Path(folder, "private.key").write_text(key)
        Path(folder).chmod(0o755)
        container = docker(
            *("create", "-p", "127.0.0.1::9000"),
            *("-e", f"MINIO_ROOT_USER={ROOT_KEY.id}", "-e", f"MINIO_ROOT_PASSWORD={ROOT_KEY.secret}"),
            *("-e", f"MINIO_KMS_SECRET_KEY={KMS_KEY}:{base64.b64encode(secrets.token_bytes(32)).decode()}"),
            *(image, "server", "/data", "--certs-dir", "/certificates"),
        )
        docker("cp", folder, f"{container}:/certificates")
    return start_container(container, 9000, scheme, "/minio/health/ready")


def start_container(container: str, port: int, scheme: str, path: str) -> Store:
    """Start an existing container, and wait until it answers at `path`."""
    docker("start", container)
    host_port = docker("port", container, f"{port}/tcp").rpartition(":")[2]
    store = Store(f"{scheme}://localhost:{host_port}", container)
    try:
        _wait_until_ready(store, path)
    except BaseException:
        stop(store)
        raise
    return store


def stop(store: Store) -> None:
    """Delete the container and its data."""
    docker("rm", "-f", "-v", store.container)


def _wait_until_ready(store: Store, path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            with urllib.request.urlopen(f"{store.endpoint}{path}", timeout=5, context=unverified):  # noqa: S310
                return
        except OSError:
            assert time.monotonic() < deadline, docker("logs", store.container)
            time.sleep(0.2)
