"""Removal of finalizers before the operator is uninstalled."""

from typing import Any, cast

import pytest
from click.testing import CliRunner

from mlflow_operator import api
from mlflow_operator.cli import main
from mlflow_operator.components.deletion.uninstall import OperatorDeployment, remove_all_finalizers
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.errors import Conflict, Forbidden, NotFound
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import NAME, SimulatedCluster

OPERATOR = OperatorDeployment("operators", "mlflow-operator", shutdown_timeout_seconds=0.0)


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A server with the operator's finalizer, and the operator's own Deployment with one pod."""
    simulation = SimulatedCluster({"deletionPolicy": "Delete"})
    await simulation.reconcile_until_stable()
    pod_labels = {"app": "operator"}
    simulation.api.put(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "mlflow-operator", "namespace": "operators"},
            "spec": {"replicas": 1, "selector": {"matchLabels": pod_labels}},
        }
    )
    meta = {"name": "mlflow-operator-1", "namespace": "operators", "labels": pod_labels}
    simulation.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta})
    return simulation


def finalizers(simulation: SimulatedCluster) -> list[str]:
    """The finalizers of the server."""
    live = simulation.get(api.KIND, NAME)
    assert live
    return [*live["metadata"].get("finalizers", ())]


async def test_finalizers_are_removed_and_retained_data_is_reported(simulation: SimulatedCluster) -> None:
    """The report names, for each server, all data that its deletion would have deleted."""
    output: list[str] = []
    await remove_all_finalizers(simulation.api, (), None, output.append)  # type: ignore[arg-type]
    assert finalizers(simulation) == []
    (line,) = output
    assert line.startswith("team/a: The operator is being uninstalled")
    assert '"a-postgres-data"' in line
    assert '"a-artifacts"' in line
    event = next(obj for (kind, _), obj in simulation.api.objects.items() if kind == "Event")
    assert event["message"] in line
    assert event["reason"] == "DataKept"


async def release(simulation: SimulatedCluster, *namespaces: str) -> list[str]:
    """Remove all finalizers and return the output."""
    output: list[str] = []
    await remove_all_finalizers(cast("KubernetesClient", simulation.api), namespaces, None, output.append)
    return output


def put_platform(simulation: SimulatedCluster, name: str, **metadata: object) -> None:
    """Create a platform with the operator's finalizer and another one."""
    kind = kinds.MLFLOWPLATFORM
    finalizers = [labels.PLATFORM_FINALIZER, "example.com/other"]
    meta = {"name": name, "finalizers": finalizers, **metadata}
    simulation.api.put({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta})


def platform_finalizers(simulation: SimulatedCluster, name: str) -> list[str]:
    """The finalizers of a platform."""
    platform = simulation.get(kinds.MLFLOWPLATFORM.kind, name)
    assert platform
    return [*platform["metadata"]["finalizers"]]


def use_platform(simulation: SimulatedCluster, name: str) -> None:
    """Record in the status of the server that it uses a platform."""
    simulation.api.edit(api.KIND, NAME, lambda live: live["status"].update(platform={"name": name}))


async def test_finalizers_of_platforms_are_removed(simulation: SimulatedCluster) -> None:
    """And no others. The output says what this means for a platform that is deleted while servers use it."""
    put_platform(simulation, "offered")
    put_platform(simulation, "shared", deletionTimestamp="2026-01-01T00:00:00Z")
    put_platform(simulation, "unused", deletionTimestamp="2026-01-01T00:00:00Z")
    use_platform(simulation, "shared")
    output = await release(simulation)
    for name in ("offered", "shared", "unused"):
        assert platform_finalizers(simulation, name) == ["example.com/other"]
    server, offered, shared, unused = output
    assert server.startswith("team/a: ")
    assert "does not wait for the servers that use it" in offered
    assert shared.startswith(
        "MLflowPlatform shared: Its deletion no longer waits for the servers that use it: team/a."
    )
    assert "Create it again" in shared
    assert "No server uses it" in unused


async def test_finalizers_of_platforms_are_kept_for_other_operators(simulation: SimulatedCluster) -> None:
    """An operator that watches selected namespaces adds none: they belong to another operator."""
    put_platform(simulation, "shared")
    await release(simulation, "team")
    assert labels.PLATFORM_FINALIZER in platform_finalizers(simulation, "shared")
    assert finalizers(simulation) == []


@pytest.mark.parametrize("change", ["deleted", "changed"])
async def test_concurrent_change_of_one_platform_does_not_affect_the_others(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """No platform is left behind with a finalizer that no operator removes."""
    put_platform(simulation, "first")
    put_platform(simulation, "second")
    patch, patched = simulation.api.json_patch, set[str]()

    async def change_first(kind: Kind, namespace: str | None, name: str, *args: Any) -> Object:
        if kind == kinds.MLFLOWPLATFORM and name not in patched:
            patched.add(name)
            if name == "first" and change == "deleted":
                raise NotFound("patch: it is gone")
            if name == "first":
                simulation.api.edit(
                    kind.kind, name, lambda live: live["metadata"]["finalizers"].append("example.com/new")
                )
        return await patch(kind, namespace, name, *args)

    monkeypatch.setattr(simulation.api, "json_patch", change_first)
    await release(simulation)
    assert platform_finalizers(simulation, "second") == ["example.com/other"]
    if change == "changed":
        assert platform_finalizers(simulation, "first") == ["example.com/other", "example.com/new"]


async def test_missing_permission_for_platforms_is_reported(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finalizers of servers are removed all the same."""
    put_platform(simulation, "shared")
    patch = simulation.api.json_patch

    async def deny_platforms(kind: Kind, *args: Any) -> Object:
        if kind == kinds.MLFLOWPLATFORM:
            raise Forbidden("patch MLflowPlatform shared: forbidden")
        return await patch(kind, *args)

    monkeypatch.setattr(simulation.api, "json_patch", deny_platforms)
    output = await release(simulation)
    assert finalizers(simulation) == []
    assert "MLflowPlatform shared: The finalizer is not removed" in output[-1]


async def test_operator_is_stopped_first(simulation: SimulatedCluster) -> None:
    """It would add its finalizer again. Finalizers are removed once its pods are gone or the timeout has passed."""
    output: list[str] = []
    await remove_all_finalizers(simulation.api, (), OPERATOR, output.append)  # type: ignore[arg-type]
    stopped = simulation.api.writes.index(("patch", "Deployment/mlflow-operator"))
    assert stopped < len(simulation.api.writes) - 1 - simulation.api.writes[::-1].index(
        ("patch", f"MLflowServer/{NAME}")
    )
    assert "did not terminate within" in output[0]
    live = simulation.get("Deployment", "mlflow-operator")
    assert live
    assert live["spec"]["replicas"] == 0


async def test_waits_for_the_operator_pods_to_terminate(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminating pod may still write."""
    calls = 0
    list_all = simulation.api.list

    async def list_twice_then_none(
        kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        nonlocal calls
        if kind.kind == "Pod" and namespace == "operators":
            calls += 1
            assert finalizers(simulation), "finalizer removed while the operator still runs"
            return [] if calls > 2 else await list_all(kind, namespace, labels, fields)
        return await list_all(kind, namespace, labels, fields)

    monkeypatch.setattr(simulation.api, "list", list_twice_then_none)
    output: list[str] = []
    operator = OperatorDeployment("operators", "mlflow-operator", poll_interval_seconds=0.0)
    await remove_all_finalizers(simulation.api, (), operator, output.append)  # type: ignore[arg-type]
    assert output[0] == "The operator is stopped."
    assert (calls, finalizers(simulation)) == (3, [])


async def test_concurrent_finalizer_change_is_retried(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another controller adds its own finalizer at the same time."""
    patch = simulation.api.json_patch
    attempts = 0

    async def patch_after_conflict(*args: object) -> Object:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            simulation.api.edit(
                api.KIND, NAME, lambda live: live["metadata"]["finalizers"].append("example.com/other")
            )
        return await patch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(simulation.api, "json_patch", patch_after_conflict)
    await remove_all_finalizers(simulation.api, (), None, lambda line: None)  # type: ignore[arg-type]
    assert finalizers(simulation) == ["example.com/other"]
    assert attempts == 2


async def test_permanent_conflict_is_an_error(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Helm hook fails and is retried; no finalizer is silently left behind."""

    async def always_conflict(*_: object) -> Object:
        raise Conflict("patch: test failed")

    monkeypatch.setattr(simulation.api, "json_patch", always_conflict)
    with pytest.raises(Conflict, match="team/a"):
        await remove_all_finalizers(simulation.api, (), None, lambda line: None)  # type: ignore[arg-type]


async def test_reports_if_no_server_has_the_finalizer() -> None:
    """Retain is the default, so usually there is nothing to do."""
    simulation = SimulatedCluster()
    await simulation.reconcile_until_stable()
    before, output = [*simulation.api.writes], [""]
    await remove_all_finalizers(simulation.api, ("team",), None, output.append)  # type: ignore[arg-type]
    assert simulation.api.writes == before
    assert "No server has the operator's finalizer" in output[-1]
    assert labels.FINALIZER.startswith("mlflow-operator.dev/")


def test_malformed_operator_name_is_a_usage_error() -> None:
    """It is detected before any request to a cluster."""
    outcome = CliRunner().invoke(main, ["remove-finalizers", "--operator=mlflow-operator"])
    assert outcome.exit_code == 2
    assert "NAMESPACE/NAME" in outcome.output
