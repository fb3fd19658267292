"""SeaweedFS as the embedded artifact store: master, volume server, filer and S3 gateway in one process.

Only the gateway's ports listen outside the pod: the others ask nobody for a key.
"""

import json

from mlflow_operator.kube import quantity
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import pod_template
from mlflow_operator.model.server import EmbeddedArtifactStore, ServerRef, Volume

USER = 1000
"""The image's own `seaweed`, to which its entrypoint would change from root."""

GRACE_SECONDS = 10
"""It ends in two seconds or, where its parts wait for each other, never; what it acknowledged is written by then."""

CONFIG_KEY = "seaweedfs.json"
"""Key of the Secret `<name>-server` that holds who may use the store. From the environment it would take a key too,
but writes the key's id into its log."""

_CONFIG = "/etc/mlflow-operator/seaweedfs"
_SMALLEST_MIB, _LARGEST_MIB, _FILES = 64, 1024, 32
"""SeaweedFS keeps objects in files of a fixed size, and takes seven at once for each bucket: a volume must have room
for many of them."""


def config(access_key: str, secret_key: str) -> str:
    """Its list of users, with one who may do everything."""
    key = {"accessKey": access_key, "secretKey": secret_key}
    return json.dumps({"identities": [{"name": "owner", "credentials": [key], "actions": ["Admin"]}]})


def container(owner: ServerRef, store: EmbeddedArtifactStore, port: int) -> Object:
    """The store's container, with its S3 gateway at `port`."""
    return {
        "name": "seaweedfs",
        "image": store.image,
        "args": [
            "server",
            "-dir=/data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            # the only one there is: an election takes ten seconds, and nobody else votes
            "-master.peers=none",
            f"-master.volumeSizeLimitMB={_file_size(store.volume)}",
            "-master.telemetry=false",
            # for others to take over, which there are none
            "-volume.preStopSeconds=0",
            "-s3",
            f"-s3.config={_CONFIG}/{CONFIG_KEY}",
            "-s3.ip.bind=0.0.0.0",
            f"-s3.port={port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            # users beside the one of the config, kept on the volume: the server's own is one
            "-s3.iam=true",
            "-s3.iam.readOnly=false",
            "-s3.allowDeleteBucketNotEmpty=false",
        ],
        "env": _memory(store.resources),
        "resources": store.resources,
        "startupProbe": pod_template.http_probe("/healthz", "s3", 1, 120),
        "readinessProbe": pod_template.http_probe("/healthz", "s3", 5, 3),
        "livenessProbe": pod_template.http_probe("/healthz", "s3", 20, 6, 10),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "config", "mountPath": _CONFIG, "readOnly": True},
            {"name": "sockets", "mountPath": "/tmp"},  # noqa: S108 - a folder of the pod's own
        ],
    }


def volumes(owner: ServerRef) -> tuple[Object, ...]:
    """Its users, and a place for the sockets by which its parts speak to each other."""
    items = [{"key": CONFIG_KEY, "path": CONFIG_KEY}]
    users = {"secretName": owner.names.server_secret, "items": items}
    return ({"name": "config", "secret": users}, {"name": "sockets", "emptyDir": {}})


def _memory(resources: Object) -> list[Object]:
    """Its garbage waits until the heap has doubled, which a limit of memory may not leave room for."""
    limit = (resources.get("limits") or {}).get("memory")
    return [pod_template.value("GOMEMLIMIT", str(int(quantity.parse(limit) * 3 / 4)))] if limit else []


def _file_size(volume: Volume) -> int:
    """In MiB."""
    fitting = int(quantity.parse(volume.size)) // 2**20 // _FILES
    return max(_SMALLEST_MIB, min(_LARGEST_MIB, fitting))
