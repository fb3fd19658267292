"""A SeaweedFS in a container: a store other than MinIO, with a user of limited permissions."""

import json
import tempfile
from pathlib import Path

from mlflow_operator.clients.s3.signed_request import AccessKey
from tests.containers import docker
from tests.contracts import minio
from tests.contracts.minio import Store

OWNER_KEY, OTHER_KEY = AccessKey("owner", "secret-of-owner"), AccessKey("other", "secret-of-other")
"""Keys of an administrator, and of a user who may only access the bucket `other`."""


def start(image: str) -> Store:
    """Start a new store on a free port of loopback. Its data is deleted with the container."""
    other_actions = [f"{action}:other" for action in ("Read", "Write", "List")]
    users = [
        {"name": key.id, "credentials": [{"accessKey": key.id, "secretKey": key.secret}], "actions": actions}
        for key, actions in ((OWNER_KEY, ["Admin"]), (OTHER_KEY, other_actions))
    ]
    sizes = ("-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.peers=none")
    container = docker(
        *("create", "-p", "127.0.0.1::8333", image, "server", "-dir=/tmp", *sizes),
        *("-s3", "-s3.config=/users.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-s3.iam=true", "-s3.iam.readOnly=false"),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "users.json")
        file.write_text(json.dumps({"identities": users}))
        file.chmod(0o644)
        docker("cp", str(file), f"{container}:/users.json")
    return minio.start_container(container, 8333, "http", "/healthz")
