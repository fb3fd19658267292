"""A server that cannot use the fast path says why."""

import pytest

from mlflow_operator.model import container_parts
from tests.e2e import timeouts
from tests.e2e.server import Server, eventually, restart_count

GROUP = "shared"


@pytest.mark.long_running(
    reason="rolls the server twice; tests/unit/components/server/test_fast_path.py simulates it"
)
def test_fallback_is_reported_until_its_cause_is_removed(shared_server: Server) -> None:
    """With metrics, MLflow's server must be imported in another process. The container ends once to report that."""
    metrics = f"{container_parts.HOME}/metrics"
    shared_server.patch_spec(env=[{"name": "MLFLOW_EXPOSE_PROMETHEUS", "value": metrics}])
    try:
        eventually(
            "the fallback is reported",
            lambda: "prometheus_multiproc_dir" in shared_server.status.get("fastPathFallback", ""),
            timeouts.READY_SECONDS,
        )
        shared_server.wait_ready()
        assert restart_count(shared_server.pod()) == 1
        events = [
            event["message"]
            for event in shared_server.kube.list("Event")
            if event["reason"] == "FastPathNotUsed"
        ]
        assert any("prometheus_multiproc_dir" in message for message in events)
    finally:
        shared_server.patch_spec(env=None)
    eventually(
        "the report is removed",
        lambda: "fastPathFallback" not in shared_server.status,
        timeouts.READY_SECONDS,
    )
    shared_server.wait_ready()
    assert restart_count(shared_server.pod()) == 0
