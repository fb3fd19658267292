"""What a benchmark reports when pods do not fit on the node or cannot start, without a cluster."""

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
    """A container with these requests."""
    return {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


def pod(namespace: str, cpu: str = "0", memory: str = "0", name: str = "a", **more: Any) -> Object:
    """A running pod on the node, unless `more` overrides its status or its spec."""
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}"}
        | more.pop("metadata", {}),
        "spec": {"nodeName": NODE, "containers": [container(cpu, memory)]} | more.pop("spec", {}),
        "status": {"phase": "Running"} | more.pop("status", {}),
    }


def pending(message: str = UNSCHEDULABLE, cpu: str = "250m", memory: str = "512Mi") -> Object:
    """A pod of a benchmark that the scheduler finds no node for."""
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
    """An MLflowServer."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def namespace(name: str, *labels: str) -> Object:
    """A namespace with these labels."""
    return {"metadata": {"name": name, "labels": dict.fromkeys(labels, "true")}}


def cluster(*found: Object, servers: tuple[Object, ...] = (), namespaces: tuple[Object, ...] = ()) -> Cluster:
    """Two cores and 8 GiB, of which the system requests 750m and 170 MiB."""
    node = {
        "metadata": {"name": NODE},
        "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "110"}},
    }
    return Cluster(node, [pod("kube-system", "750m", "170Mi"), *found], [*namespaces], [*servers])


def after_the_demo() -> Cluster:
    """The cluster as `make demo` leaves it, while the shared stores and one of two servers run."""
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
def test_quantities_are_read_as_kubernetes_writes_them(
    quantities: dict[str, str] | None, expected: Resources
) -> None:
    """Cores or thousandths, bytes with binary suffixes."""
    assert Resources.of(quantities) == expected


def test_a_pod_requests_the_larger_of_its_containers_and_its_init_containers() -> None:
    """As the scheduler counts: sidecars run beside both."""
    found = pod("a", "100m", "100Mi")
    found["spec"]["initContainers"] = [
        container("50m", "10Mi", restartPolicy="Always"),
        container("300m", "20Mi"),
    ]
    assert capacity.requests(found) == Resources(350, 110 * MIB)


def test_only_pods_that_hold_resources_of_the_node_count() -> None:
    """A terminated pod, and one that has no node, hold nothing."""
    found = cluster(
        pod("a", "100m"),
        pod("a", "100m", status={"phase": "Succeeded"}),
        pod("a", "100m", spec={"nodeName": "another"}),
        pending(),
    )
    assert found.reserved == {"kube-system": Resources(750, 170 * MIB), "a": Resources(100, 0)}
    assert found.free == Resources(1150, (8192 - 170) * MIB)


def test_an_unschedulable_pod_is_explained_in_one_message() -> None:
    """The pod, the resource, what takes the room, and the command that frees it."""
    found = pods.obstacle(pending())
    assert found
    message = pods.explain(found, after_the_demo(), KUBECTL, ["bench-rate-1", "bench-stores-1"])
    assert "bench-rate-1/tutorial-x cannot be scheduled: Insufficient cpu, memory" in message
    assert "requests 250m CPU and 512 MiB memory" in message
    assert "200m CPU" in message.splitlines()[0]
    assert "mlflow-demo: 200m CPU and 864 MiB memory" in message
    assert message.splitlines()[-1].strip() == (
        KUBECTL
        + """ -n mlflow-demo patch mlflowserver tracking --type=merge -p '{"spec":{"suspend":true}}'"""
    )


def test_another_reason_of_the_scheduler_is_passed_on() -> None:
    """A missing volume is no lack of resources."""
    found = pods.obstacle(pending('0/1 nodes are available: persistentvolumeclaim "x" not found.'))
    assert found
    message = pods.explain(found, cluster(), KUBECTL)
    assert 'persistentvolumeclaim "x" not found' in message
    assert message.endswith(f"{KUBECTL} -n bench-rate-1 describe pod tutorial-x")


@pytest.mark.parametrize("reason", sorted(pods.PULL_REASONS))
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str, kind: str) -> None:
    """With the kubelet's message, and the command that makes images available."""
    waiting = {"reason": reason, "message": 'Back-off pulling image "busybox:9": not found'}
    state = {kind: [{"image": "busybox:9", "state": {"waiting": waiting}}]}
    found = pods.obstacle(pod("bench-a", status={"phase": "Pending", **state}))
    assert found
    message = pods.explain(found, cluster(), KUBECTL)
    assert "bench-a/a cannot pull image busybox:9" in message
    assert "not found" in message
    assert message.splitlines()[-1].strip() == "make cluster"


def test_a_pod_that_starts_or_is_deleted_is_no_obstacle() -> None:
    """Otherwise every start would fail."""
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "image": "x"}
    assert pods.obstacle(pod("a", status={"phase": "Pending", "containerStatuses": [creating]})) is None
    assert pods.obstacle(pod("a", status={"phase": "Pending", "conditions": []})) is None
    deleted = pending()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert pods.obstacle(deleted) is None


@pytest.mark.parametrize(
    ("ends", "phase", "expected"),
    [
        (timedelta(seconds=20), "Running", True),
        (timedelta(seconds=-5), "Running", True),
        (-pods.OVERDUE - timedelta(seconds=5), "Running", False),
        (timedelta(seconds=20), "Succeeded", False),
        (None, "Running", False),
    ],
)
def test_terminating_pods_are_awaited_but_not_forever(
    ends: timedelta | None, phase: str, expected: bool
) -> None:
    """A pod that does not terminate in time must not hide that another one does not fit."""
    meta = {} if ends is None else {"deletionTimestamp": f"{NOW + ends:%Y-%m-%dT%H:%M:%SZ}"}
    assert pods.frees_soon([pod("a", metadata=meta, status={"phase": phase})], NOW) is expected


def test_a_pod_that_fits_by_now_is_left_to_the_scheduler() -> None:
    """It is scheduled at the next attempt."""
    found = pods.obstacle(pending())
    assert found
    assert pods.fits(found, cluster())
    assert not pods.fits(found, after_the_demo())


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
def test_the_fewest_commands_that_free_enough_are_named(blocking: Cluster, expected: list[str]) -> None:
    """Data stays: only namespaces that tests and benchmarks created are deleted. The system is left alone."""
    found = capacity.commands(blocking, Resources(500, 0), KUBECTL, ["bench-own"])
    assert found == [f"{KUBECTL} {command}" for command in expected]


def test_the_advice_never_promises_what_no_command_frees() -> None:
    """A node that is too small is named as such."""
    advice = capacity.advice(cluster(pod("a", "100m")), Resources(500, 0), KUBECTL)
    assert advice == "No command frees 500m CPU: the node is too small for these pods."


def test_the_preflight_names_figures_that_do_not_fit_and_no_others() -> None:
    """By what is free, to the last thousandth of a core."""
    blocking = cluster(pod("mlflow-demo", "200m", "864Mi"), servers=(server("mlflow-demo"),))
    needed = {
        "fits exactly": Resources(1050, 0),
        "one too many": Resources(1051, 0),
        "memory": Resources(0, 8 * 1024 * MIB),
    }
    unfit = capacity.preflight(blocking, needed, KUBECTL)
    assert sorted(unfit) == ["memory", "one too many"]
    assert "cpu is short" in unfit["one too many"]
    assert "memory is short" in unfit["memory"]
    assert "patch mlflowserver tracking" in unfit["one too many"]


def test_the_throughput_figure_does_not_fit_beside_the_demo_and_does_without() -> None:
    """The case that made a run wait for ten minutes: two cores after `make demo`."""
    needed = {"throughput": throughput.peak_requests(False)}
    operator = pod("mlflow-operator", "50m", "128Mi")
    assert capacity.preflight(cluster(operator, pod("mlflow-demo", "200m", "864Mi")), needed, KUBECTL)
    assert not capacity.preflight(cluster(operator), needed, KUBECTL)


def test_every_figure_fits_on_two_cores() -> None:
    """`make bench` produces every figure on the machine that the README names."""
    operator = pod("mlflow-operator", "50m", "128Mi")
    for quick in (True, False):
        needed = {name: figure.requests(quick) for name, figure in FIGURES.items()}
        assert capacity.preflight(cluster(operator), needed, KUBECTL) == {}


def test_a_quick_run_needs_no_more_than_a_full_one() -> None:
    """The number of servers decides."""
    assert at_rest.peak_requests(True).short_of(at_rest.peak_requests(False)) == ["cpu", "memory"]


def test_the_smallest_server_requests_what_is_rendered_for_it() -> None:
    """The preflight counts what `mlflow-operator render` prints."""
    rendered = Resources()
    for obj in cold_start.rendered("bench"):
        if obj["kind"] in {"Deployment", "StatefulSet", "Job"}:
            rendered += capacity.requests(obj["spec"]["template"])
    assert cold_start.peak_requests(False) == rendered
    assert Resources.of(sizing.migration()["requests"]).cpu > 0


def test_namespaces_that_share_the_cpu_are_named() -> None:
    """The cluster's own, the operator's and the benchmarks' are expected."""
    found = cluster(
        pod("mlflow-operator", "50m"),
        pod("bench-a", "50m"),
        pod("e2e-1", "25m", "128Mi"),
        namespaces=(namespace("bench-a", BENCH_LABEL), namespace("e2e-1", TEST_LABEL)),
    )
    assert capacity.others(found) == "e2e-1: 25m CPU and 128 MiB memory"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (server("mlflow-demo", suspend=False), ["tracking"]),
        (server("mlflow-demo"), ["tracking"]),
        (server("mlflow-demo", suspend=True), []),
        (server("default", suspend=False), []),
    ],
)
def test_only_running_servers_of_the_demo_are_suspended(found: Object, expected: list[str]) -> None:
    """A server that the user suspended is not resumed, and another namespace's is not touched."""
    assert demo.to_suspend([found]) == expected


def test_a_server_that_a_killed_run_suspended_is_resumed() -> None:
    """The annotation tells it from one that the user suspended."""
    found = server("mlflow-demo", suspend=True)
    found["metadata"]["annotations"] = {demo.SUSPENDED: "true"}
    assert demo.to_suspend([found]) == ["tracking"]
