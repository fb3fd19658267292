"""A fallback of the launcher is reported in the status and as an Event."""

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_diagnosis import FALLBACK_PREFIX
from mlflow_operator.status.conditions import Reason
from tests.unit.simulation import SimulatedCluster

REASON = "MLflow sets prometheus_multiproc_dir, which its server may read on import."
REPORT: Object = {
    "terminated": {"exitCode": 0, "reason": "Completed", "message": f"{FALLBACK_PREFIX}{REASON[:-1]}"}
}
CRASH: Object = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server."""
    return await SimulatedCluster.ready()


def fallback(simulation: SimulatedCluster) -> str | None:
    """`status.fastPathFallback`."""
    resource = simulation.get("MLflowServer", "a")
    assert resource
    value: str | None = resource["status"].get("fastPathFallback")
    return value


def event_messages(simulation: SimulatedCluster) -> list[str]:
    """The messages of the Warning Events about fallbacks."""
    return [
        message
        for is_normal, reason, message in simulation.events.published
        if reason == "FastPathNotUsed" and not is_normal
    ]


def pod_status(last_state: Object | None, *, ready: bool = True) -> Object:
    """Status of a pod whose server ended with `last_state` before its current start; None: it is the first start."""
    sidecar = {"name": "proxy", "ready": True, "restartCount": 0, "state": {"running": {}}}
    restarted = {"restartCount": 1, "lastState": last_state} if last_state else {}
    return {
        "phase": "Running",
        "containerStatuses": [sidecar, {**sidecar, "name": "mlflow", "ready": ready, **restarted}],
    }


def start(simulation: SimulatedCluster, last_state: Object | None, *, ready: bool = True) -> None:
    """Start the container of the server's pod. See `pod_status`."""
    status = pod_status(last_state, ready=ready)
    simulation.api.edit("Pod", "a-pod", lambda pod: pod.update(status=status))


async def test_no_report_of_a_server_with_the_fast_path(simulation: SimulatedCluster) -> None:
    """A container that has never ended has reported nothing."""
    start(simulation, None)
    await simulation.reconcile()
    assert fallback(simulation) is None
    assert not event_messages(simulation)


async def test_fallback_is_reported_once(simulation: SimulatedCluster) -> None:
    """`kubectl describe mlflowserver` shows the field and the Event."""
    start(simulation, REPORT)
    for _ in range(3):
        await simulation.reconcile()
    assert fallback(simulation) == REASON
    (message,) = event_messages(simulation)
    assert f"twice the memory: {REASON} " in message
    assert "spec.resources" in message
    assert simulation.condition("Ready")[0] == "True"


async def test_container_that_ends_to_report_does_not_crash(simulation: SimulatedCluster) -> None:
    """The report is known before the server is available."""
    start(simulation, REPORT, ready=False)
    unavailable = {"replicas": 1, "updatedReplicas": 1}
    simulation.api.edit("Deployment", "a", lambda deployment: deployment.update(status=unavailable))
    await simulation.reconcile()
    assert simulation.condition("ServerAvailable")[1] == Reason.PROGRESSING
    assert fallback(simulation) == REASON


async def test_later_crash_keeps_the_report(simulation: SimulatedCluster) -> None:
    """The status of a pod contains only the last end of a container."""
    start(simulation, REPORT)
    await simulation.reconcile()
    start(simulation, CRASH)
    await simulation.reconcile()
    assert fallback(simulation) == REASON
    assert len(event_messages(simulation)) == 1


async def test_rollout_removes_the_report(simulation: SimulatedCluster) -> None:
    """New pods report again if necessary. Pods that are being deleted do not count."""
    start(simulation, REPORT)
    await simulation.reconcile()
    old_pod = simulation.get("Pod", "a-pod")
    assert old_pod
    simulation.update_spec(env=[{"name": "NEW", "value": "1"}])
    updating = {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}
    simulation.api.edit("Deployment", "a", lambda deployment: deployment.update(status=updating))
    await simulation.reconcile()
    assert fallback(simulation) is None
    simulation.run_controllers()
    start(simulation, CRASH)
    meta = {**old_pod["metadata"], "name": "a-old", "deletionTimestamp": simulation.now}
    simulation.api.put({**old_pod, "metadata": meta, "status": pod_status(REPORT)})
    await simulation.reconcile()
    assert fallback(simulation) is None


async def test_text_of_a_report_is_limited(simulation: SimulatedCluster) -> None:
    """Any program can write a termination message. The field has a maximum length, and an Event is one line."""
    message = f"{FALLBACK_PREFIX}{'x' * 5000}\nsecond line"
    start(simulation, {"terminated": {"exitCode": 0, "message": message}})
    await simulation.reconcile()
    assert fallback(simulation) == f"{'x' * 600}."
