"""Large files on their way to a server's store and back, and what the server's memory shows of them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from mlflow.utils import server_info

from mlflow_operator.model.secrets import decoded
from tests.e2e import timeouts
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually

WITHIN = 300.0

_CLIENT = """
import sys
from tests.e2e.large_files import there_and_back
print(there_and_back(sys.argv[1], int(sys.argv[2])).as_json())
"""


@dataclass(frozen=True)
class Trip:
    """One file's. `uri` is where its run's artifacts are; times in seconds."""

    uri: str
    up: float
    down: float
    same: bool

    def as_json(self) -> str:
        """For another process."""
        return json.dumps([self.uri, self.up, self.down, self.same])


class TransferError(AssertionError):
    """A client could not transfer its file; its own last words."""


def there_and_back(url: str, size: int) -> Trip:
    """Logs a file of `size` bytes as `file.bin` and fetches it again."""
    scientist = Scientist(url)
    run = scientist.run()
    began = time.monotonic()
    logged = scientist.upload(run, "file.bin", size)
    up = time.monotonic()
    found = scientist.download(run, "file.bin")
    down = time.monotonic()
    uri = scientist.client.get_run(run).info.artifact_uri
    return Trip(uri, up - began, down - up, logged == found)


def by_a_stranger(server: Server, environment: dict[str, str], size: int) -> Trip:
    """The same from a process that knows nothing but this environment; it reaches the server from outside."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {
        **kept,
        "PYTHONPATH": str(server.kube.settings.root),
        # without keys it would ask the network it is in for some
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    words = [sys.executable, "-c", _CLIENT, server.url, str(size)]
    done = subprocess.run(
        words, env=given | environment, capture_output=True, text=True, check=False, timeout=WITHIN
    )
    if done.returncode:
        raise TransferError(done.stderr[-2000:])
    return Trip(*json.loads(done.stdout.splitlines()[-1]))


def given(server: Server) -> tuple[dict[str, str], dict[str, str]]:
    """What clients of a Direct server take as environment: what is no secret, and what is."""
    settings = server.kube.need("ConfigMap", server.status["clientConfigMapRef"]["name"])["data"]
    return settings, decoded(server.kube.need("Secret", server.status["clientSecretRef"]["name"]))


def peak(server: Server) -> int:
    """The most memory that the server's container had at once, in bytes, its files' pages included: by cgroup v2, or
    v1."""
    v2, v1 = "/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    pod = server.pod()["metadata"]["name"]
    script = f"cat {v2} 2>/dev/null || cat {v1}"
    return int(server.kube.kubectl("exec", pod, "-c", "mlflow", "--", "sh", "-c", script))


def change(server: Server, **artifacts: object) -> None:
    """Has the server take another way for artifacts, and waits for its new pod, and until the old one is gone: that
    answers to the end of its grace, and what it answers is the way of before."""
    old = server.pod()
    server.change(storageChangePolicy="Allow", artifacts=artifacts)
    server.replaced("server", old)
    eventually(
        "the old pod is gone", lambda: not server.kube.get("Pod", old["metadata"]["name"]), timeouts.ROLLED
    )
    server.ready()
    # this process' client would go by what the server offered before
    server_info._clear_server_info_cache()
