"""External stores as a platform team runs them: Postgres, MinIO and others, from the images of the embedded stores."""

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from tests.e2e import timeouts
from tests.e2e.certificates import CertificateAuthority
from tests.e2e.kube import Kube, Object
from tests.e2e.server import SMALL_RESOURCES, eventually, is_ready

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RESTRICTED_SECURITY_CONTEXT: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
PASSWORD = "p@ss/w:rd?#[]&%2F+ \"'\\$x"
"""Contains every character that has a meaning in a URI, a shell or an ini file."""


@dataclass(frozen=True)
class Postgres:
    """A Postgres at `host` with the database `mlflow`, and its superuser's name and password."""

    kube: Kube
    host: str
    user: str
    password: str

    def query(self, sql: str, database: str = "mlflow") -> str:
        """Run a query as the superuser; returns psql's output, unaligned and tuples only."""
        return self.kube.kubectl(
            "exec",
            "postgres",
            "--",
            "psql",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            self.user,
            "-d",
            database,
            "-Atc",
            sql,
        )

    def set_reachable(self, *, reachable: bool) -> None:
        """Restore or remove the Service's endpoint; without it, connections are refused."""
        self.kube.patch(
            "Service", "postgres", {"spec": {"selector": {"app": "postgres" if reachable else "none"}}}
        )


@dataclass(frozen=True)
class MinIO:
    """An empty MinIO at `endpoint`, with its root key."""

    kube: Kube
    endpoint: str
    access_key: str
    secret_key: str

    def client(self, access_key: str = "", secret_key: str = "") -> "S3Client":
        """Return an S3 client with this key, by default the root key. Outside the cluster, MinIO must not use TLS."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
        )


def start_postgres(
    kube: Kube, ca: CertificateAuthority, password: str = PASSWORD, *, user: str = "team@home"
) -> Postgres:
    """Start a Postgres with TLS and a certificate of `ca`."""
    host = f"postgres.{kube.namespace}.svc"
    tls_settings = {
        "ssl": "on",
        "ssl_cert_file": "/certificate/tls.crt",
        "ssl_key_file": "/certificate/tls.key",
    }
    options = [part for name, value in tls_settings.items() for part in ("-c", f"{name}={value}")]
    start_pod(
        kube,
        "postgres",
        5432,
        ca.issue(host, f"{host}.cluster.local"),
        {
            "image": kube.settings.pins["IMAGE_POSTGRES"],
            "args": ["postgres", *options],
            "env": [
                {"name": "POSTGRES_USER", "value": user},
                {"name": "POSTGRES_DB", "value": "mlflow"},
                {"name": "POSTGRES_PASSWORD", "value": password},
                {"name": "POSTGRES_INITDB_ARGS", "value": "--encoding=UTF8 --locale=C.UTF-8"},
                {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
            ],
            # During initialization Postgres does not listen on TCP, so a TCP probe is enough and starts no process
            # every second.
            "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        },
        {"/var/lib/postgresql/data": 999, "/var/run/postgresql": 999},
    )
    return Postgres(kube, host, user, password)


def start_minio(kube: Kube, ca: CertificateAuthority | None) -> MinIO:
    """Start a MinIO: with a certificate of `ca`, or with plain HTTP on a NodePort that external clients reach, too."""
    key, secret = "teamkey", PASSWORD
    host = f"minio.{kube.namespace}.svc"
    scheme = "HTTPS" if ca else "HTTP"
    service = start_pod(
        kube,
        "minio",
        9000,
        ca.issue(host, f"{host}.cluster.local", f"*.{host}") if ca else None,
        {
            "image": kube.settings.pins["IMAGE_MINIO"],
            "args": ["server", "/data", *(("--certs-dir", "/certificate") if ca else ())],
            "env": [
                {"name": "MINIO_ROOT_USER", "value": key},
                {"name": "MINIO_ROOT_PASSWORD", "value": secret},
                {"name": "HOME", "value": "/data"},
            ],
            "readinessProbe": {
                "httpGet": {"path": "/minio/health/ready", "port": 9000, "scheme": scheme},
                "periodSeconds": 1,
            },
        },
        {"/data": 10001},
    )
    if ca:
        return MinIO(kube, f"https://{host}:9000", key, secret)
    node_port = service["spec"]["ports"][0]["nodePort"]
    return MinIO(kube, f"http://{kube.node_address}:{node_port}", key, secret)


def start_seaweedfs(kube: Kube) -> MinIO:
    """Start a SeaweedFS with plain HTTP on a NodePort. It is used like a MinIO, with its administrator's key."""
    key, secret = "weedkey", PASSWORD
    owner = {
        "name": "owner",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin"],
    }
    service = start_pod(
        kube,
        "seaweedfs",
        9000,
        None,
        {
            "image": kube.settings.pins["IMAGE_SEAWEEDFS"],
            "args": [
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.peers=none",
                "-s3",
                "-s3.config=/files/s3.json",
                "-s3.ip.bind=0.0.0.0",
                "-s3.port=9000",
            ],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9000}, "periodSeconds": 1},
        },
        {"/data": 1000, "/tmp": 1000},
        {"s3.json": json.dumps({"identities": [owner]})},
    )
    node_port = service["spec"]["ports"][0]["nodePort"]
    return MinIO(kube, f"http://{kube.node_address}:{node_port}", key, secret)


def start_pgbouncer(kube: Kube, upstream: Postgres, users: dict[str, str], **overrides: str) -> str:
    """Start a PgBouncer in transaction mode for these users and passwords; returns its host. Its port is 6432."""
    settings = {
        "listen_addr": "*",
        "listen_port": "6432",
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "auth_type": "scram-sha-256",
        "auth_file": "/files/userlist.txt",
        "server_login_retry": "1",
        **overrides,
    }
    lines = ["[databases]", f"* = host={upstream.host} port=5432", "[pgbouncer]"]
    escaped = [[word.replace('"', '""') for word in pair] for pair in users.items()]
    start_pod(
        kube,
        "pgbouncer",
        6432,
        None,
        {
            "image": kube.settings.pins["IMAGE_PGBOUNCER"],
            "command": ["/usr/sbin/pgbouncer", "/files/pgbouncer.ini"],
            "readinessProbe": {"tcpSocket": {"port": 6432}, "periodSeconds": 1},
        },
        {"/run/pgbouncer": 10001},
        {
            "pgbouncer.ini": "\n".join([*lines, *(f"{k} = {v}" for k, v in settings.items()), ""]),
            "userlist.txt": "".join(f'"{user}" "{password}"\n' for user, password in escaped),
        },
    )
    return f"pgbouncer.{kube.namespace}.svc"


def start_pod(  # noqa: PLR0917
    kube: Kube,
    name: str,
    port: int,
    certificate: tuple[str, str] | None,
    container: Object,
    folders: dict[str, int],
    files: dict[str, str] | None = None,
    more_ports: tuple[int, ...] = (),
) -> Object:
    """Create a pod and its Service, and wait until it accepts connections; returns the Service.

    Without a certificate the Service is a NodePort. `files` are mounted at /files. `port` is the Service's first port.
    """
    user = next(iter(folders.values()))
    mounts = [{"name": f"data-{i}", "mountPath": path} for i, path in enumerate(folders)]
    volumes: list[Object] = [{"name": mount["name"], "emptyDir": {}} for mount in mounts]
    objects: list[Object] = []
    if certificate:
        # Postgres and MinIO expect different file names
        keys = ("tls.crt", "tls.key") if name == "postgres" else ("public.crt", "private.key")
        values = dict(zip(keys, certificate, strict=True))
        objects.append(secret(f"{name}-certificate", **values))
        mounts.append({"name": "certificate", "mountPath": "/certificate"})
        # Postgres rejects a key file that others than root and its own group can read
        volumes.append(
            {"name": "certificate", "secret": {"secretName": f"{name}-certificate", "defaultMode": 0o440}}
        )
    if files:
        objects.append(secret(f"{name}-files", **files))
        mounts.append({"name": "files", "mountPath": "/files"})
        volumes.append({"name": "files", "secret": {"secretName": f"{name}-files"}})
    labels = {"app": name}
    kube.apply(
        *objects,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
                "containers": [
                    {
                        "name": name,
                        **container,
                        "resources": SMALL_RESOURCES,
                        "securityContext": RESTRICTED_SECURITY_CONTEXT,
                        "volumeMounts": mounts,
                    }
                ],
                "volumes": volumes,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "ClusterIP" if certificate else "NodePort",
                "selector": labels,
                "ports": [{"name": f"port-{number}", "port": number} for number in (port, *more_ports)],
            },
        },
    )
    eventually(f"{name} is ready", lambda: is_ready(kube.require("Pod", name)), timeouts.READY_SECONDS)
    service = kube.require("Service", name)
    if node_port := service["spec"]["ports"][0].get("nodePort"):
        # kube-proxy learns of a ready pod a moment later
        eventually(
            f"{name} answers at its NodePort",
            lambda: accepts_connections(kube.node_address, node_port),
            timeouts.ENDPOINT_SECONDS,
        )
    return service


def accepts_connections(host: str, port: int) -> bool:
    """Whether the port accepts a TCP connection."""
    try:
        socket.create_connection((host, port), timeout=timeouts.POLL_INTERVAL_SECONDS).close()
    except OSError:
        return False
    return True


def secret(name: str, **values: str) -> Object:
    """Return a Secret with these values."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
