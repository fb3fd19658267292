"""SeaweedFS as the embedded artifact store: master, volume server, filer and S3 gateway in one process.

Only the S3 gateway listens on the pod's network: the other components require no authentication.
"""

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

_CONFIG_DIR = "/etc/mlflow-operator/seaweedfs"
_MIN_FILE_MIB, _MAX_FILE_MIB, _MIN_FILES = 64, 1024, 32
"""SeaweedFS stores objects in volume files of a fixed size, and allocates seven of them for each bucket: the
PersistentVolumeClaim must have room for many of them."""


def config(access_key: str, secret_key: str) -> str:
    """Configuration of the S3 gateway with one user, who has full access."""
    key = {"accessKey": access_key, "secretKey": secret_key}
    return json.dumps({"identities": [{"name": "owner", "credentials": [key], "actions": ["Admin"]}]})


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
        "env": _memory_env(store.resources),
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
    items = [{"key": CONFIG_KEY, "path": CONFIG_KEY}]
    config_source = {"secretName": owner.names.server_secret, "items": items}
    return ({"name": "config", "secret": config_source}, {"name": "sockets", "emptyDir": {}})


def _memory_env(resources: Object) -> list[Object]:
    """Set Go's memory limit: by default the heap may double between collections, which can exceed the pod's limit."""
    limit = (resources.get("limits") or {}).get("memory")
    return [container_parts.env_value("GOMEMLIMIT", str(int(quantity.parse(limit) * 3 / 4)))] if limit else []


def _file_size_mib(volume: Volume) -> int:
    """Size of a volume file in MiB."""
    size_mib = int(quantity.parse(volume.size)) // 2**20 // _MIN_FILES
    return max(_MIN_FILE_MIB, min(_MAX_FILE_MIB, size_mib))
