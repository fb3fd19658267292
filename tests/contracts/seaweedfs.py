"""A SeaweedFS to try providers on: a store that is no MinIO, with users who may not do everything."""

import json
import tempfile
from pathlib import Path

from mlflow_operator.clients.s3.signed_request import AccessKey
from tests.containers import docker
from tests.contracts import minio
from tests.contracts.minio import Store

OWNER, STRANGER = AccessKey("owner", "secret-of-owner"), AccessKey("stranger", "secret-of-stranger")
"""May do everything; and something in buckets called `stranger` alone."""


def start(image: str) -> Store:
    """A new one on a free port of loopback; its data goes with it."""
    strange = [f"{action}:stranger" for action in ("Read", "Write", "List")]
    users = [
        {"name": key.id, "credentials": [{"accessKey": key.id, "secretKey": key.secret}], "actions": actions}
        for key, actions in ((OWNER, ["Admin"]), (STRANGER, strange))
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
    return minio.started(container, 8333, "http", "/healthz")
