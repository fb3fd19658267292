"""Reports of benchmarks about pods that do not fit on the node or cannot start, without a cluster."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from benchmarks import BENCH_LABEL, at_rest, capacity, cold_start, demo, pods, throughput
from benchmarks.__main__ import FIGURES
from benchmarks.capacity import Cluster, Resources

from mlflow_operator.model import resources as sizing
from tests.e2e.kube import TEST_LABEL

Object = dict[str, Any]

NODE = "node-1"
MIB = 1024 * 1024
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
KUBECTL = "kubectl --kubeconfig=/x"
UNSCHEDULABLE = (
    "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint "
    "{kwok.x-k8s.io/node: fake}. preemption: 0/2 nodes are available: 1 No preemption victims found."
)


def container(cpu: str = "0", memory: str = "0", **more: Any) -> Object:
    """Return a container with these requests."""
    return {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


def pod(namespace: str, cpu: str = "0", memory: str = "0", name: str = "a", **more: Any) -> Object:
    """Return a pod, by default running on the node; `more` overrides its metadata, spec or status."""
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}"}
        | more.pop("metadata", {}),
        "spec": {"nodeName": NODE, "containers": [container(cpu, memory)]} | more.pop("spec", {}),
        "status": {"phase": "Running"} | more.pop("status", {}),
    }


def unschedulable_pod(message: str = UNSCHEDULABLE, cpu: str = "250m", memory: str = "512Mi") -> Object:
    """Return an unschedulable pod of a benchmark."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(
        "bench-rate-1",
        cpu,
        memory,
        "tutorial-x",
        spec={"nodeName": None},
        status={"phase": "Pending", "conditions": [condition]},
    )


def server(namespace: str, name: str = "tracking", **spec: Any) -> Object:
    """Return an MLflowServer."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def namespace(name: str, *labels: str) -> Object:
    """Return a namespace with these labels."""
    return {"metadata": {"name": name, "labels": dict.fromkeys(labels, "true")}}


def cluster(*pods: Object, servers: tuple[Object, ...] = (), namespaces: tuple[Object, ...] = ()) -> Cluster:
    """Return a cluster with two cores and 8 GiB, of which the system requests 750m and 170 MiB."""
    node = {
        "metadata": {"name": NODE},
        "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "110"}},
    }
    return Cluster(node, [pod("kube-system", "750m", "170Mi"), *pods], [*namespaces], [*servers])


def cluster_after_demo() -> Cluster:
    """Return the cluster after `make demo`, while the shared stores and one of two servers run."""
    return cluster(
        pod("mlflow-demo", "200m", "864Mi"),
        pod("mlflow-operator", "50m", "128Mi"),
        pod("bench-stores-1", "50m", "384Mi"),
        pod("bench-rate-1", "750m", "1536Mi"),
        servers=(server("mlflow-demo", suspend=False),),
    )


@pytest.mark.parametrize(
    ("quantities", "expected"),
    [
        (None, Resources()),
        ({"cpu": "250m", "memory": "1Gi"}, Resources(250, 1024 * MIB)),
        ({"cpu": "2", "memory": "1000Ki", "pods": "110"}, Resources(2000, 1000 * 1024)),
        ({"cpu": "0.1"}, Resources(100, 0)),
    ],
)
def test_kubernetes_quantities_are_parsed(quantities: dict[str, str] | None, expected: Resources) -> None:
    """Cores or millicores, and bytes with binary suffixes."""
    assert Resources.of(quantities) == expected


def test_pod_requests_are_the_maximum_of_containers_and_init_containers() -> None:
    """As the scheduler calculates: sidecars run in parallel to both."""
    example = pod("a", "100m", "100Mi")
    example["spec"]["initContainers"] = [
        container("50m", "10Mi", restartPolicy="Always"),
        container("300m", "20Mi"),
    ]
    assert capacity.pod_requests(example) == Resources(350, 110 * MIB)


def test_only_running_pods_on_the_node_are_counted() -> None:
    """Terminated pods and pods without a node use no resources."""
    example = cluster(
        pod("a", "100m"),
        pod("a", "100m", status={"phase": "Succeeded"}),
        pod("a", "100m", spec={"nodeName": "another"}),
        unschedulable_pod(),
    )
    assert example.requests_by_namespace == {"kube-system": Resources(750, 170 * MIB), "a": Resources(100, 0)}
    assert example.free == Resources(1150, (8192 - 170) * MIB)


def test_unschedulable_pod_is_explained() -> None:
    """The message has the pod, the resource, the namespaces that use it, and the command that frees it."""
    failure = pods.find_start_failure(unschedulable_pod())
    assert failure
    message = pods.explain(failure, cluster_after_demo(), KUBECTL, ["bench-rate-1", "bench-stores-1"])
    assert "bench-rate-1/tutorial-x cannot be scheduled: Insufficient cpu, memory" in message
    assert "requests 250m CPU and 512 MiB memory" in message
    assert "200m CPU" in message.splitlines()[0]
    assert "mlflow-demo: 200m CPU and 864 MiB memory" in message
    assert message.splitlines()[-1].strip() == (
        KUBECTL
        + """ -n mlflow-demo patch mlflowserver tracking --type=merge -p '{"spec":{"suspend":true}}'"""
    )


def test_other_scheduler_messages_are_passed_on() -> None:
    """For example for a missing volume claim, which is not a lack of resources."""
    failure = pods.find_start_failure(
        unschedulable_pod('0/1 nodes are available: persistentvolumeclaim "x" not found.')
    )
    assert failure
    message = pods.explain(failure, cluster(), KUBECTL)
    assert 'persistentvolumeclaim "x" not found' in message
    assert message.endswith(f"{KUBECTL} -n bench-rate-1 describe pod tutorial-x")


@pytest.mark.parametrize("reason", sorted(pods.PULL_REASONS))
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_unavailable_image_is_reported(reason: str, kind: str) -> None:
    """With the kubelet's message, and the command that makes images available."""
    waiting = {"reason": reason, "message": 'Back-off pulling image "busybox:9": not found'}
    state = {kind: [{"image": "busybox:9", "state": {"waiting": waiting}}]}
    failure = pods.find_start_failure(pod("bench-a", status={"phase": "Pending", **state}))
    assert failure
    message = pods.explain(failure, cluster(), KUBECTL)
    assert "bench-a/a cannot pull image busybox:9" in message
    assert "not found" in message
    assert message.splitlines()[-1].strip() == "make cluster"


def test_starting_or_deleted_pod_is_no_failure() -> None:
    """Otherwise every start of a pod would fail."""
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "image": "x"}
    assert (
        pods.find_start_failure(pod("a", status={"phase": "Pending", "containerStatuses": [creating]}))
        is None
    )
    assert pods.find_start_failure(pod("a", status={"phase": "Pending", "conditions": []})) is None
    deleted = unschedulable_pod()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert pods.find_start_failure(deleted) is None


@pytest.mark.parametrize(
    ("ends", "phase", "expected"),
    [
        (timedelta(seconds=20), "Running", True),
        (timedelta(seconds=-5), "Running", True),
        (-pods.TERMINATION_MARGIN - timedelta(seconds=5), "Running", False),
        (timedelta(seconds=20), "Succeeded", False),
        (None, "Running", False),
    ],
)
def test_terminating_pods_are_awaited_until_overdue(
    ends: timedelta | None, phase: str, expected: bool
) -> None:
    """A pod that does not terminate in time must not hide that another pod does not fit."""
    meta = {} if ends is None else {"deletionTimestamp": f"{NOW + ends:%Y-%m-%dT%H:%M:%SZ}"}
    assert pods.frees_resources_soon([pod("a", metadata=meta, status={"phase": phase})], NOW) is expected


def test_pod_that_now_fits_is_left_to_the_scheduler() -> None:
    """The scheduler's next attempt succeeds."""
    failure = pods.find_start_failure(unschedulable_pod())
    assert failure
    assert pods.fits_now(failure, cluster())
    assert not pods.fits_now(failure, cluster_after_demo())


@pytest.mark.parametrize(
    ("blocking", "expected"),
    [
        (cluster(pod("a", "900m"), namespaces=(namespace("a", TEST_LABEL),)), ["delete namespace a"]),
        (cluster(pod("a", "900m"), namespaces=(namespace("a", BENCH_LABEL),)), ["delete namespace a"]),
        (
            cluster(pod("a", "900m"), namespaces=(namespace("a"),)),
            ["-n a scale deployments,statefulsets --all --replicas=0"],
        ),
        (
            cluster(pod("a", "100m"), pod("b", "900m"), pod("c", "200m", "1Gi"), servers=(server("b"),)),
            ["""-n b patch mlflowserver tracking --type=merge -p '{"spec":{"suspend":true}}'"""],
        ),
        (
            cluster(pod("a", "300m"), pod("b", "400m")),
            [
                "-n b scale deployments,statefulsets --all --replicas=0",
                "-n a scale deployments,statefulsets --all --replicas=0",
            ],
        ),
        (cluster(pod("mlflow-operator", "900m")), []),
        (cluster(pod("bench-own", "900m")), []),
    ],
)
def test_fewest_commands_that_free_enough(blocking: Cluster, expected: list[str]) -> None:
    """Data stays: only namespaces of tests and benchmarks are deleted, and the system is not affected."""
    commands = capacity.commands_to_free(blocking, Resources(500, 0), KUBECTL, ["bench-own"])
    assert commands == [f"{KUBECTL} {command}" for command in expected]


def test_advice_reports_a_node_that_is_too_small() -> None:
    """If no commands free enough, the advice does not suggest any."""
    advice = capacity.advice(cluster(pod("a", "100m")), Resources(500, 0), KUBECTL)
    assert advice == "No command frees 500m CPU: the node is too small for these pods."


def test_preflight_names_only_figures_that_do_not_fit() -> None:
    """Compared with the free resources, exact to a millicore."""
    blocking = cluster(pod("mlflow-demo", "200m", "864Mi"), servers=(server("mlflow-demo"),))
    needed = {
        "fits exactly": Resources(1050, 0),
        "one too many": Resources(1051, 0),
        "memory": Resources(0, 8 * 1024 * MIB),
    }
    blocked = capacity.preflight(blocking, needed, KUBECTL)
    assert sorted(blocked) == ["memory", "one too many"]
    assert "does not have enough free cpu" in blocked["one too many"]
    assert "does not have enough free memory" in blocked["memory"]
    assert "patch mlflowserver tracking" in blocked["one too many"]


def test_throughput_only_fits_without_the_demo() -> None:
    """On two cores after `make demo`, a run once waited for ten minutes."""
    needed = {"throughput": throughput.peak_requests(False)}
    operator = pod("mlflow-operator", "50m", "128Mi")
    assert capacity.preflight(cluster(operator, pod("mlflow-demo", "200m", "864Mi")), needed, KUBECTL)
    assert not capacity.preflight(cluster(operator), needed, KUBECTL)


def test_every_figure_fits_on_two_cores() -> None:
    """`make bench` can measure every figure on a machine with two cores, as the README says."""
    operator = pod("mlflow-operator", "50m", "128Mi")
    for quick in (True, False):
        needed = {name: figure.peak_requests(quick) for name, figure in FIGURES.items()}
        assert capacity.preflight(cluster(operator), needed, KUBECTL) == {}


def test_quick_run_requests_less_than_a_full_run() -> None:
    """It creates fewer servers."""
    assert at_rest.peak_requests(True).short_of(at_rest.peak_requests(False)) == ["cpu", "memory"]


def test_cold_start_requests_match_rendered_manifests() -> None:
    """The preflight uses the requests that `mlflow-operator render` prints."""
    rendered = Resources()
    for obj in cold_start.rendered("bench"):
        if obj["kind"] in {"Deployment", "StatefulSet", "Job"}:
            rendered += capacity.pod_requests(obj["spec"]["template"])
    assert cold_start.peak_requests(False) == rendered
    assert Resources.of(sizing.migration()["requests"]).cpu > 0


def test_other_namespaces_with_requests_are_named() -> None:
    """Namespaces of the cluster, of the operator and of benchmarks are not named."""
    example = cluster(
        pod("mlflow-operator", "50m"),
        pod("bench-a", "50m"),
        pod("e2e-1", "25m", "128Mi"),
        namespaces=(namespace("bench-a", BENCH_LABEL), namespace("e2e-1", TEST_LABEL)),
    )
    assert capacity.other_namespaces(example) == "e2e-1: 25m CPU and 128 MiB memory"


@pytest.mark.parametrize(
    ("demo_server", "expected"),
    [
        (server("mlflow-demo", suspend=False), ["tracking"]),
        (server("mlflow-demo"), ["tracking"]),
        (server("mlflow-demo", suspend=True), []),
        (server("default", suspend=False), []),
    ],
)
def test_only_running_servers_of_the_demo_are_suspended(demo_server: Object, expected: list[str]) -> None:
    """A server that the user suspended is not resumed, and servers in other namespaces are not changed."""
    assert demo.servers_to_suspend([demo_server]) == expected


def test_server_suspended_by_a_killed_run_is_resumed() -> None:
    """The annotation distinguishes it from a server that the user suspended."""
    demo_server = server("mlflow-demo", suspend=True)
    demo_server["metadata"]["annotations"] = {demo.SUSPENDED_ANNOTATION: "true"}
    assert demo.servers_to_suspend([demo_server]) == ["tracking"]
