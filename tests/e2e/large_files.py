"""Upload and download of large files, and the server's memory usage meanwhile."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from mlflow.utils import server_info

from mlflow_operator.model.secrets import text_values
from tests.e2e import timeouts
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually

TIMEOUT_SECONDS = 300.0

_CLIENT = """
import sys
from tests.e2e.large_files import round_trip
print(round_trip(sys.argv[1], int(sys.argv[2])).as_json())
"""


@dataclass(frozen=True)
class RoundTrip:
    """Upload and download of one file. `unchanged`: the downloaded file equals the uploaded one."""

    artifact_uri: str
    upload_seconds: float
    download_seconds: float
    unchanged: bool

    def as_json(self) -> str:
        """Serialize for another process."""
        return json.dumps([self.artifact_uri, self.upload_seconds, self.download_seconds, self.unchanged])


class TransferError(AssertionError):
    """A client could not transfer its file; the message is the end of its stderr."""


def round_trip(url: str, size: int) -> RoundTrip:
    """Log a file of `size` bytes as `file.bin` and download it again."""
    workload = Workload(url)
    run_id = workload.create_run()
    start = time.monotonic()
    uploaded = workload.upload(run_id, "file.bin", size)
    upload_end = time.monotonic()
    downloaded = workload.download(run_id, "file.bin")
    download_end = time.monotonic()
    uri = workload.client.get_run(run_id).info.artifact_uri
    return RoundTrip(uri, upload_end - start, download_end - upload_end, uploaded == downloaded)


def round_trip_in_subprocess(server: Server, environment: dict[str, str], size: int) -> RoundTrip:
    """Run `round_trip` outside the cluster in a process that has no other environment variables than these."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    base = {
        **inherited,
        "PYTHONPATH": str(server.kube.settings.root),
        # without keys, boto3 would request some from the metadata service of the network
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    argv = [sys.executable, "-c", _CLIENT, server.url, str(size)]
    done = subprocess.run(
        argv, env=base | environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
    )
    if done.returncode:
        raise TransferError(done.stderr[-2000:])
    return RoundTrip(*json.loads(done.stdout.splitlines()[-1]))


def client_environment(server: Server) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of clients of a server with Direct access: public settings, and credentials."""
    settings = server.kube.require("ConfigMap", server.status["clientConfigMapRef"]["name"])["data"]
    return settings, text_values(server.kube.require("Secret", server.status["clientSecretRef"]["name"]))


def peak_memory_bytes(server: Server) -> int:
    """Return the peak memory usage of the server's container in bytes, page cache included (cgroup v2 or v1)."""
    v2, v1 = "/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    pod = server.pod()["metadata"]["name"]
    script = f"cat {v2} 2>/dev/null || cat {v1}"
    return int(server.kube.kubectl("exec", pod, "-c", "mlflow", "--", "sh", "-c", script))


def change_artifacts(server: Server, **artifacts: object) -> None:
    """Change `spec.artifacts`, wait for the new pod and until the old pod is gone.

    The old pod answers until the end of its grace period, and its answers name the previous access mode.
    """
    old = server.pod()
    server.patch_spec(storageChangePolicy="Allow", artifacts=artifacts)
    server.wait_replaced("server", old)
    eventually(
        "the old pod is gone",
        lambda: not server.kube.get("Pod", old["metadata"]["name"]),
        timeouts.ROLLOUT_SECONDS,
    )
    server.wait_ready()
    # the client of this process caches the server's previous answer
    server_info._clear_server_info_cache()
