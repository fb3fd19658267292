"""Memory of an idle server with different numbers of workers, compared with `mlflow server`.

The proportional set size counts a page that several processes share once in total, so the values of the processes of a
pod can be added. The working set would count the page cache as well.
"""

from collections.abc import Callable, Mapping
from functools import partial

from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION, COMPONENT

from benchmarks import plain, stores
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, ratio_at_most
from benchmarks.stores import Stores
from benchmarks.waits import is_ready
from mlflow_operator.model import resources as sizing

WORKERS = (1, 2, 4)
MAX_RATIO = 0.6

_KIB_OF_MIB = 1024
# The kernel shows the processes of a container in a cgroup whose path contains the container's id.
_SAMPLE_SCRIPT = """
find /sys/fs/cgroup -path "*$1*" -name cgroup.procs -exec cat {} + | sort -u | while read -r process; do
  sed -n 's/^Pss: *//p' "/proc/$process/smaps_rollup" 2>/dev/null
done
"""


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, and one server for each number of workers."""
    servers = [sizing.server(workers, job_execution=False, fast_path=True) for workers in WORKERS]
    return sum((Resources.of(server["requests"]) for server in servers), stores.REQUESTS)


def measure(lab: Lab) -> list[Row]:
    """Return a row for each number of workers. All servers of a kind run at the same time."""
    shared, template = lab.stores(), lab.migrated_database()
    samples: dict[int, tuple[list[float], list[float]]] = {workers: ([], []) for workers in WORKERS}
    for round_number in range(lab.rounds):
        databases = {
            workers: shared.create_database(f"memory_{round_number}_{workers}", template)
            for workers in WORKERS
        }
        for position, measure_all in enumerate((_measure_operator, _measure_plain)):
            for workers, mib in measure_all(lab, shared, databases).items():
                samples[workers][position].append(mib)
    return [
        ratio_at_most(
            f"memory of an idle server, workers: {workers}",
            operator,
            baseline,
            MAX_RATIO,
            unit="MiB",
            baseline_name="mlflow server",
        )
        for workers, (operator, baseline) in samples.items()
    ]


def _measure_operator(lab: Lab, shared: Stores, databases: dict[int, str]) -> dict[int, float]:
    with lab.namespace("memory") as kube:
        kube.apply(*shared.secrets())
        kube.apply(
            *(
                {
                    "apiVersion": API_VERSION,
                    "kind": "MLflowServer",
                    "metadata": {"name": f"workers-{workers}"},
                    "spec": {**shared.spec(database), "workers": workers},
                }
                for workers, database in databases.items()
            )
        )
        return _sizes(lab, kube, {COMPONENT: "server"}, lambda name: is_ready(kube.get("MLflowServer", name)))


def _measure_plain(lab: Lab, shared: Stores, databases: dict[int, str]) -> dict[int, float]:
    with lab.namespace("bare-memory") as kube:
        image = kube.settings.pins["IMAGE_MLFLOW"]
        kube.apply(
            *(
                plain.minimal_deployment(
                    image, shared.uri(database), shared.env(database), f"workers-{workers}", workers
                )
                for workers, database in databases.items()
            )
        )
        return _sizes(lab, kube, {}, lambda name: _has_ready_replica(kube.get("Deployment", name)))


def _has_ready_replica(deployment: Object | None) -> bool:
    return bool(deployment and (deployment.get("status") or {}).get("readyReplicas"))


def _sizes(
    lab: Lab, kube: Kube, selector: Mapping[str, str], has_started: Callable[[str], bool]
) -> dict[int, float]:
    """Wait until all servers are ready. Return the memory of each in MiB, by the number of its workers."""
    for workers in WORKERS:
        name = f"workers-{workers}"
        lab.wait_for(f"{name} is ready", partial(has_started, name), timeouts.READY_SECONDS)
    pods = kube.list("Pod", selector)
    return {
        workers: pod_mib(kube, next(pod for pod in pods if _name(pod).startswith(f"workers-{workers}-")))
        for workers in WORKERS
    }


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def pod_mib(kube: Kube, pod: Object) -> float:
    """Return the memory of all processes of a pod in MiB."""
    container = str(pod["status"]["containerStatuses"][0]["containerID"]).rpartition("//")[2]
    output = kube.node_command("sh", "-c", _SAMPLE_SCRIPT, "sample", container)
    sizes = [int(line.split()[0]) for line in output.splitlines()]
    if not sizes:
        raise RuntimeError(f"pod {_name(pod)} has no processes")
    return sum(sizes) / _KIB_OF_MIB
