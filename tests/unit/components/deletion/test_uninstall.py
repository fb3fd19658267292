"""What is done before the operator goes for good."""

import pytest
from click.testing import CliRunner

from mlflow_operator import api
from mlflow_operator.cli import main
from mlflow_operator.components.deletion import uninstall
from mlflow_operator.components.deletion.uninstall import Deployed, remove_all_finalizers
from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Conflict
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import NAME, World

OPERATOR = Deployed("operators", "mlflow-operator", seconds=0.0)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server that its operator holds, and the operator's own Deployment with one pod."""
    world = World(monkeypatch, {"deletionPolicy": "Delete"})
    await world.until_settled()
    carried = {"app": "operator"}
    world.api.put(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "mlflow-operator", "namespace": "operators"},
            "spec": {"replicas": 1, "selector": {"matchLabels": carried}},
        }
    )
    meta = {"name": "mlflow-operator-1", "namespace": "operators", "labels": carried}
    world.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta})
    return world


def finalizers(world: World) -> list[str]:
    """Of the one server."""
    live = world.get(api.KIND, NAME)
    assert live
    return [*live["metadata"].get("finalizers", ())]


async def test_every_finalizer_goes_and_what_stays_is_named(world: World) -> None:
    """For each server, with all that would have gone with it."""
    said: list[str] = []
    await remove_all_finalizers(world.api, (), None, said.append)  # type: ignore[arg-type]
    assert finalizers(world) == []
    (line,) = said
    assert line.startswith("team/a: The operator is being uninstalled")
    assert '"a-postgres-data"' in line
    assert '"a-artifacts"' in line
    event = next(obj for (kind, _), obj in world.api.objects.items() if kind == "Event")
    assert event["message"] in line
    assert event["reason"] == "DataKept"


async def test_the_operator_is_stopped_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would put its finalizer on again: so it must be gone, or have had its time, before any is taken off."""
    said: list[str] = []
    await remove_all_finalizers(world.api, (), OPERATOR, said.append)  # type: ignore[arg-type]
    stopped = world.api.writes.index(("patch", "Deployment/mlflow-operator"))
    assert stopped < len(world.api.writes) - 1 - world.api.writes[::-1].index(
        ("patch", f"MLflowServer/{NAME}")
    )
    assert "did not end within" in said[0]
    live = world.get("Deployment", "mlflow-operator")
    assert live
    assert live["spec"]["replicas"] == 0


async def test_its_pods_are_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends its work may still write."""
    looks = 0
    list_all = world.api.list

    async def ends_after_two(
        kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        nonlocal looks
        if kind.kind == "Pod" and namespace == "operators":
            looks += 1
            assert finalizers(world), "let go while the operator still runs"
            return [] if looks > 2 else await list_all(kind, namespace, labels, fields)
        return await list_all(kind, namespace, labels, fields)

    monkeypatch.setattr(world.api, "list", ends_after_two)
    monkeypatch.setattr(uninstall, "_LOOK_SECONDS", 0.0)
    said: list[str] = []
    await remove_all_finalizers(world.api, (), Deployed("operators", "mlflow-operator"), said.append)  # type: ignore[arg-type]
    assert said[0] == "The operator is stopped."
    assert (looks, finalizers(world)) == (3, [])


async def test_a_finalizer_that_changes_meanwhile_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else puts one of their own on at the same moment."""
    patch = world.api.json_patch
    met = 0

    async def meets_another(*args: object) -> Object:
        nonlocal met
        met += 1
        if met == 1:
            world.api.edit(api.KIND, NAME, lambda live: live["metadata"]["finalizers"].append("theirs/one"))
        return await patch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(world.api, "json_patch", meets_another)
    await remove_all_finalizers(world.api, (), None, lambda line: None)  # type: ignore[arg-type]
    assert finalizers(world) == ["theirs/one"]
    assert met == 2


async def test_one_that_is_never_at_rest_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook fails and is tried again, rather than to leave one behind unsaid."""

    async def never(*_: object) -> Object:
        raise Conflict("patch: test failed")

    monkeypatch.setattr(world.api, "json_patch", never)
    with pytest.raises(Conflict, match="team/a"):
        await remove_all_finalizers(world.api, (), None, lambda line: None)  # type: ignore[arg-type]


async def test_with_nothing_to_let_go_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retain is the default: mostly there is nothing to do."""
    world = World(monkeypatch)
    await world.until_settled()
    before, said = [*world.api.writes], [""]
    await remove_all_finalizers(world.api, ("team",), None, said.append)  # type: ignore[arg-type]
    assert world.api.writes == before
    assert "No server is held" in said[-1]
    assert labels.FINALIZER.startswith("mlflow-operator.dev/")


def test_a_wrong_name_of_the_operator_is_a_usage_error() -> None:
    """Before anything is asked of a cluster."""
    outcome = CliRunner().invoke(main, ["remove-finalizers", "--operator=mlflow-operator"])
    assert outcome.exit_code == 2
    assert "NAMESPACE/NAME" in outcome.output
