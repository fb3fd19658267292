"""Working set of the operator's leader, or of any pod, from the cgroups of the node."""

import subprocess
import threading
from types import TracebackType

from tests.cluster import node
from tests.e2e import operator_release
from tests.e2e.kube import Kube

MIB = 1024 * 1024
# Supports both versions of cgroups. The working set is defined like in the kubelet and in `kubectl top`.
SAMPLE_SCRIPT = """
cg=$(find /sys/fs/cgroup -type d -name "*$1*" -path '*memory*' | head -n 1)
[ -n "$cg" ] || cg=$(find /sys/fs/cgroup -type d -name "*$1*" | head -n 1)
cd "$cg" || exit 1
end=$(($(date +%s) + 900))
# it has its own time limit, because it does not notice the end of `docker exec`
while [ -f memory.stat ] && [ "$(date +%s)" -lt $end ]; do
  if [ -f memory.usage_in_bytes ]; then
    echo "$(cat memory.usage_in_bytes) $(sed -n 's/^total_inactive_file //p' memory.stat)"
  else
    echo "$(cat memory.current) $(sed -n 's/^inactive_file //p' memory.stat)"
  fi
  sleep "$2"
done
"""


class WorkingSet:
    """Samples the memory of a container or a pod for the duration of the context; `samples` are in MiB.

    `group` is the id of the container or the uid of the pod; None means the leader's container.
    """

    def __init__(self, kube: Kube, group: str | None = None, interval_seconds: float = 1.0) -> None:
        self._kube, self._group, self._interval_seconds = kube, group, interval_seconds
        self.samples: list[float] = []

    def __enter__(self) -> "WorkingSet":
        group = self._group or leader_container_id(self._kube)
        argv = [
            "docker",
            "exec",
            node.CONTAINER,
            "sh",
            "-c",
            SAMPLE_SCRIPT,
            "sample",
            group,
            str(self._interval_seconds),
        ]
        self._process = subprocess.Popen(argv, env=self._kube.env, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._thread.join(10)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if (found := parse_working_set(line)) is not None:
                self.samples.append(found)

    @property
    def peak_mib(self) -> float:
        """Largest sample in MiB. Raises RuntimeError if there is none."""
        if not self.samples:
            raise RuntimeError("there is no memory sample")
        return max(self.samples)


def parse_working_set(line: str) -> float | None:
    """Parse `<usage> <inactive file>` in bytes; returns the working set in MiB, or None for any other line."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return max(0, int(parts[0]) - int(parts[1])) / MIB


def leader_pod_name(kube: Kube) -> str:
    """Return the name of the pod that holds the Lease."""
    lease = kube.in_namespace(operator_release.NAMESPACE).require("Lease", operator_release.RELEASE)
    holder = str(lease["spec"]["holderIdentity"])
    names = [str(pod["metadata"]["name"]) for pod in operator_release.pods(kube)]
    return next((name for name in names if holder.startswith(name)), names[0])


def leader_container_id(kube: Kube) -> str:
    """Return the id of the leader's container."""
    pod = kube.in_namespace(operator_release.NAMESPACE).require("Pod", leader_pod_name(kube))
    return str(pod["status"]["containerStatuses"][0]["containerID"]).rpartition("//")[2]
