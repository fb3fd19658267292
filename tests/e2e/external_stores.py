"""Somebody else's Postgres and MinIO: what a platform team runs already, made from the very images we embed."""

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from tests.e2e import timeouts
from tests.e2e.certificates import Authority
from tests.e2e.kube import Kube, Object
from tests.e2e.server import LITTLE, eventually, is_ready

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
PASSWORD = "p@ss/w:rd?#[]&%2F+ \"'\\$x"
"""Every character that means something in a URI, a shell or an ini file."""


@dataclass(frozen=True)
class Postgres:
    """A Postgres at `host`, with the database `mlflow`, for the user and the password given."""

    kube: Kube
    host: str
    user: str
    password: str

    def query(self, sql: str, database: str = "mlflow") -> str:
        """What psql prints as the superuser; unaligned, tuples only."""
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

    def answer(self, *, yes: bool) -> None:
        """Takes it off its address, or puts it back: whoever connects is refused."""
        self.kube.patch(
            "Service", "postgres", {"spec": {"selector": {"app": "postgres" if yes else "nobody"}}}
        )


@dataclass(frozen=True)
class MinIO:
    """A MinIO at `endpoint`, empty, with its root key."""

    kube: Kube
    endpoint: str
    access_key: str
    secret_key: str

    def client(self, access_key: str = "", secret_key: str = "") -> "S3Client":
        """An S3 client with this key; without one, with the root key. From outside it needs a MinIO without TLS."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
        )


def postgres(kube: Kube, ca: Authority, password: str = PASSWORD, *, user: str = "team@home") -> Postgres:
    """Starts one that speaks TLS with a certificate of `ca`."""
    host = f"postgres.{kube.namespace}.svc"
    secure = {
        "ssl": "on",
        "ssl_cert_file": "/certificate/tls.crt",
        "ssl_key_file": "/certificate/tls.key",
    }
    options = [part for name, value in secure.items() for part in ("-c", f"{name}={value}")]
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
            # its first start listens to nobody, so this is enough, and no program has to be started each second
            "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        },
        {"/var/lib/postgresql/data": 999, "/var/run/postgresql": 999},
    )
    return Postgres(kube, host, user, password)


def minio(kube: Kube, ca: Authority | None) -> MinIO:
    """Starts one: with a certificate of `ca`, or in plain HTTP on a NodePort that clients outside reach, too."""
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


def seaweedfs(kube: Kube) -> MinIO:
    """Starts a SeaweedFS in plain HTTP on a NodePort; it is used as a MinIO is, with a key of its administrator."""
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


def pgbouncer(kube: Kube, before: Postgres, users: dict[str, str], **changed: str) -> str:
    """Starts one that lends sessions of Postgres by the transaction to these users; returns its host. Port 6432."""
    settings = {
        "listen_addr": "*",
        "listen_port": "6432",
        "unix_socket_dir": "",
        "pool_mode": "transaction",
        "auth_type": "scram-sha-256",
        "auth_file": "/files/userlist.txt",
        "server_login_retry": "1",
        **changed,
    }
    lines = ["[databases]", f"* = host={before.host} port=5432", "[pgbouncer]"]
    doubled = [[word.replace('"', '""') for word in pair] for pair in users.items()]
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
            "userlist.txt": "".join(f'"{user}" "{password}"\n' for user, password in doubled),
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
    """One pod and its Service (a NodePort where there is no certificate); waits until it answers.

    `files` are there in /files. Of the Service's ports `port` is the first.
    """
    user = next(iter(folders.values()))
    mounts = [{"name": f"data-{i}", "mountPath": path} for i, path in enumerate(folders)]
    volumes: list[Object] = [{"name": mount["name"], "emptyDir": {}} for mount in mounts]
    objects: list[Object] = []
    if certificate:
        # Postgres and MinIO each look for names of their own
        keys = ("tls.crt", "tls.key") if name == "postgres" else ("public.crt", "private.key")
        values = dict(zip(keys, certificate, strict=True))
        objects.append(secret(f"{name}-certificate", **values))
        mounts.append({"name": "certificate", "mountPath": "/certificate"})
        # Postgres refuses a key that anybody but root and its own group may read
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
                        "resources": LITTLE,
                        "securityContext": SECURITY,
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
                "ports": [{"name": f"port-{each}", "port": each} for each in (port, *more_ports)],
            },
        },
    )
    eventually(f"{name} is ready", lambda: is_ready(kube.need("Pod", name)), timeouts.READY)
    service = kube.need("Service", name)
    if node_port := service["spec"]["ports"][0].get("nodePort"):
        # kube-proxy hears of a ready pod a moment later
        eventually(
            f"{name} answers at its NodePort", lambda: opens(kube.node_address, node_port), timeouts.ANSWERS
        )
    return service


def opens(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        socket.create_connection((host, port), timeout=timeouts.POLL).close()
    except OSError:
        return False
    return True


def secret(name: str, **values: str) -> Object:
    """A Secret with these values."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
