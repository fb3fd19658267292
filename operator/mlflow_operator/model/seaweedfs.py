"""SeaweedFS as the embedded artifact store: master, volume server, filer and S3 gateway in one process.

Only the S3 gateway listens on the pod's network: the other components require no authentication. The gateway itself has
a gRPC port that changes its users, on the same addresses. It requires a client certificate, and no client has one.
"""

import datetime
import hashlib
import hmac
import json

from mlflow_operator.kube import quantity
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts
from mlflow_operator.model.server import EmbeddedArtifactStore, ServerRef, Volume

RUN_AS_USER = 1000
"""The user `seaweed` of the image. Started as root, the image's entrypoint would switch to it."""

GRACE_SECONDS = 10
"""SeaweedFS stops within two seconds, or never if its components wait for each other. Acknowledged writes are on disk
by then."""

CONFIG_KEY = "seaweedfs.json"
"""Key of the Secret `<name>-server` with the users of the store. SeaweedFS also accepts an access key from environment
variables, but then logs its ID."""

_GRPC_CERTIFICATE_KEY, _GRPC_PRIVATE_KEY_KEY = "seaweedfs-grpc.crt", "seaweedfs-grpc.key"
_CONFIG_DIR = "/etc/mlflow-operator/seaweedfs"
_MIN_FILE_MIB, _MAX_FILE_MIB, _MIN_FILES = 64, 1024, 32
"""SeaweedFS stores objects in volume files of a fixed size, and allocates seven of them for each bucket: the
PersistentVolumeClaim must have room for many of them."""


def config(access_key: str, secret_key: str) -> dict[str, str]:
    """Files of the S3 gateway: its configuration with one user, who has full access, and TLS for its gRPC port."""
    key = {"accessKey": access_key, "secretKey": secret_key}
    identities = [{"name": "owner", "credentials": [key], "actions": ["Admin"]}]
    certificate, private_key = _grpc_certificate(secret_key)
    return {
        CONFIG_KEY: json.dumps({"identities": identities}),
        _GRPC_CERTIFICATE_KEY: certificate,
        _GRPC_PRIVATE_KEY_KEY: private_key,
    }


def _grpc_certificate(secret_key: str) -> tuple[str, str]:
    """Return a certificate that is its own CA, and its private key, which the root key determines.

    A client needs this private key, and everyone who can read it can read the root key, too. With Ed25519, the same
    root key always gives the same certificate, so that reconciles write nothing. The root key is random: it cannot be
    guessed from the certificate.
    """
    # Imported here because only SeaweedFS needs them, and they take 10 MiB.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    seed = hmac.digest(secret_key.encode(), b"mlflow-operator seaweedfs grpc", hashlib.sha256)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mlflow-operator")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    pem = serialization.Encoding.PEM
    private_key = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), private_key.decode()


def container(owner: ServerRef, store: EmbeddedArtifactStore, port: int) -> Object:
    """The store's container. Its S3 gateway listens on `port`."""
    return {
        "name": "seaweedfs",
        "image": store.image,
        "args": [
            "server",
            "-dir=/data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            # A single master: otherwise its leader election takes ten seconds.
            "-master.peers=none",
            f"-master.volumeSizeLimitMB={_file_size_mib(store.volume)}",
            "-master.telemetry=false",
            # No delay for other volume servers to take over: there are none.
            "-volume.preStopSeconds=0",
            "-s3",
            f"-s3.config={_CONFIG_DIR}/{CONFIG_KEY}",
            # Go listens on IPv6 addresses, too, if the node has IPv6. With `::` it would need IPv6.
            "-s3.ip.bind=0.0.0.0",
            f"-s3.port={port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            # Allow users in addition to the one in the configuration; the server's own user is one of them. They are
            # stored on the volume.
            "-s3.iam=true",
            "-s3.iam.readOnly=false",
            "-s3.allowDeleteBucketNotEmpty=false",
        ],
        "env": [*_grpc_env(), *_memory_env(store.resources)],
        "resources": store.resources,
        "startupProbe": container_parts.http_probe("/healthz", "s3", 1, 120),
        "readinessProbe": container_parts.http_probe("/healthz", "s3", 5, 3),
        "livenessProbe": container_parts.http_probe("/healthz", "s3", 20, 6, 10),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "config", "mountPath": _CONFIG_DIR, "readOnly": True},
            {"name": "sockets", "mountPath": "/tmp"},  # noqa: S108 - a mount path
        ],
    }


def volumes(owner: ServerRef) -> tuple[Object, ...]:
    """Volumes for the users' configuration and for the Unix sockets between the components."""
    items = [{"key": key, "path": key} for key in (CONFIG_KEY, _GRPC_CERTIFICATE_KEY, _GRPC_PRIVATE_KEY_KEY)]
    config_source = {"secretName": owner.names.server_secret, "items": items}
    return ({"name": "config", "secret": config_source}, {"name": "sockets", "emptyDir": {}})


def _grpc_env() -> list[Object]:
    """TLS settings of the gateway's gRPC port. Those of the other components and of all clients remain without TLS.

    After a change of a user, the filer cannot notify the gateway through this port. The gateway also watches the filer.
    """
    files = {
        "WEED_GRPC_S3_CERT": _GRPC_CERTIFICATE_KEY,
        "WEED_GRPC_S3_KEY": _GRPC_PRIVATE_KEY_KEY,
        "WEED_GRPC_CA": _GRPC_CERTIFICATE_KEY,
    }
    return [container_parts.env_value(name, f"{_CONFIG_DIR}/{key}") for name, key in files.items()]


def _memory_env(resources: Object) -> list[Object]:
    """Set Go's memory limit: by default the heap may double between collections, which can exceed the pod's limit."""
    limit = (resources.get("limits") or {}).get("memory")
    return [container_parts.env_value("GOMEMLIMIT", str(int(quantity.parse(limit) * 3 / 4)))] if limit else []


def _file_size_mib(volume: Volume) -> int:
    """Size of a volume file in MiB."""
    size_mib = int(quantity.parse(volume.size)) // 2**20 // _MIN_FILES
    return max(_MIN_FILE_MIB, min(_MAX_FILE_MIB, size_mib))
