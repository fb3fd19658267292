"""The end of a server: what goes, in which order, what stays, and that nothing holds it for ever."""

from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.components.deletion import retained_event
from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.kube.objects import Object
from tests.unit.simulation import EXTERNAL, NAME, CutOff, World

DELETE: Object = {"deletionPolicy": "Delete"}
DATA = {
    ("Secret", "a-database"),
    ("Secret", "a-artifacts"),
    ("PersistentVolumeClaim", "a-postgres-data"),
    ("PersistentVolumeClaim", "a-artifacts-data"),
}


async def running(monkeypatch: pytest.MonkeyPatch, spec: Object | None = None) -> World:
    """A server that is Ready and at rest."""
    world = World(monkeypatch, spec)
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    return world


@pytest.fixture
async def doomed(monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose data goes with it."""
    return await running(monkeypatch, DELETE)


def resource(world: World) -> Object | None:
    """The server itself."""
    return world.get(api.KIND, NAME)


def left(world: World) -> set[tuple[str, str]]:
    """Its data that is there."""
    return DATA & world.api.objects.keys()


async def until_gone(world: World, rounds: int = 20) -> None:
    """Reconciles, and lets Kubernetes stop pods, until the resource is gone."""
    for _ in range(rounds):
        if resource(world) is None:
            return
        await world.reconcile()
        world.settle()
    raise AssertionError(f"still there: {world.condition('Ready')}")


def annotate(world: World, key: str) -> None:
    """`kubectl annotate`."""
    world.api.edit(api.KIND, NAME, lambda live: live["metadata"].update(annotations={key: "true"}))


def told(world: World) -> list[tuple[str, str]]:
    """Reasons and sentences of all Events."""
    return [(reason, message) for _, reason, message in world.events.published]


async def test_a_server_whose_data_stays_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be gone at once, also where no operator runs any more."""
    world = await running(monkeypatch)
    assert "finalizers" not in (resource(world) or {})["metadata"]


async def test_it_is_held_before_anything_is_made_that_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a deletion in the first second would leave what was just made."""
    world = World(monkeypatch, DELETE)
    await world.reconcile()
    assert world.api.writes[0] == ("patch", f"MLflowServer/{NAME}")
    assert (resource(world) or {})["metadata"]["finalizers"] == [labels.FINALIZER]


async def test_finalizers_of_others_stay_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever put them there waits for something of their own."""
    world = World(monkeypatch, DELETE)
    world.api.edit(api.KIND, NAME, lambda live: live["metadata"].update(finalizers=["example.com/theirs"]))
    await world.reconcile()
    assert (resource(world) or {})["metadata"]["finalizers"] == ["example.com/theirs", labels.FINALIZER]


async def test_at_rest_it_costs_nothing(doomed: World) -> None:
    """The finalizer is there, and is not put on again and again."""
    before = list(doomed.api.writes)
    await doomed.reconcile()
    assert doomed.api.writes == before


async def test_who_thinks_better_of_it_keeps_everything(doomed: World) -> None:
    """Retain takes our finalizer off, and leaves somebody else's."""
    doomed.api.edit(api.KIND, NAME, lambda live: live["metadata"]["finalizers"].append("example.com/theirs"))
    doomed.change(deletionPolicy="Retain")
    await doomed.reconcile()
    assert (resource(doomed) or {})["metadata"]["finalizers"] == ["example.com/theirs"]


async def test_all_of_its_data_goes_and_the_pods_first(doomed: World) -> None:
    """Pods, then Secrets, then volumes; and the Event says so."""
    begun = len(doomed.api.writes)
    doomed.delete()
    await doomed.reconcile()
    assert left(doomed) == DATA, "while a server's pod may still write, nothing goes"
    await until_gone(doomed)
    assert not left(doomed)
    gone = [name for verb, name in doomed.api.writes[begun:] if verb == "delete" and "Job" not in name]
    assert gone == [
        "Secret/a-database",
        "Secret/a-artifacts",
        "PersistentVolumeClaim/a-postgres-data",
        "PersistentVolumeClaim/a-artifacts-data",
    ]
    assert told(doomed)[-1] == ("DataDeleted", "Deleted, its data and passwords with it.")


async def test_cut_off_after_any_write_the_deletion_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each N: the process dies after its Nth write, a fresh one deletes the rest."""
    whole = await running(monkeypatch, DELETE)
    begun = len(whole.api.writes)
    whole.delete()
    await until_gone(whole)
    for n in range(len(whole.api.writes) - begun):
        world = await running(monkeypatch, DELETE)
        world.delete()
        world.api.dies_after = len(world.api.writes) + n
        with pytest.raises(CutOff):
            await until_gone(world)
        world.api.dies_after = None
        await until_gone(world)
        assert not left(world), f"cut off after write {n}"


async def test_a_pod_that_does_not_end_is_told_and_waited_for(doomed: World) -> None:
    """It may still write; but the sentence names it, and how to end the wait."""
    doomed.delete()
    await doomed.reconcile()
    assert doomed.condition("Ready")[1:] == (
        "Progressing",
        'Is being deleted, its data with it. Waits for pod "a-pod" to end.',
    )
    doomed.now = "2026-01-01T00:05:00Z"
    await doomed.reconcile()
    _, reason, message = doomed.condition("Ready")
    assert reason == "DeletionBlocked"
    assert 'pod "a-pod"' in message
    assert "kubectl annotate mlflowserver -n team a mlflow-operator.dev/skip-data-deletion=true" in message
    assert left(doomed) == DATA


async def test_a_person_s_word_ends_it_and_the_rest_stays(doomed: World) -> None:
    """Whatever is in the way; and what stays is named."""
    doomed.delete()
    await doomed.reconcile()
    annotate(doomed, labels.SKIP_DATA_DELETION)
    await doomed.reconcile()
    assert resource(doomed) is None
    assert left(doomed) == DATA
    reason, message = told(doomed)[-1]
    assert reason == "DataKept"
    assert all(f'"{name}"' in message for _, name in DATA)


async def test_a_resource_that_can_t_be_read_can_be_let_go(doomed: World) -> None:
    """Nobody knows what to delete then; but it must not be there for ever."""
    doomed.api.edit(api.KIND, NAME, lambda live: live["spec"].update(replicas=-1))
    doomed.delete()
    await doomed.reconcile()
    assert doomed.condition("Ready")[1] == "DeletionBlocked"
    annotate(doomed, labels.SKIP_DATA_DELETION)
    await doomed.reconcile()
    assert resource(doomed) is None
    assert left(doomed) == DATA


async def test_what_the_api_server_refuses_is_told_and_tried_again(doomed: World) -> None:
    """A role that lacks the right to delete Secrets, say."""
    doomed.delete()
    await doomed.reconcile()
    doomed.settle()
    doomed.api.refuses["Secret"] = Forbidden("delete Secret team/a-database: 403 Forbidden: not allowed.")
    await doomed.reconcile()
    _, reason, message = doomed.condition("Ready")
    assert reason == "DeletionBlocked"
    assert "The API server refuses: delete Secret team/a-database" in message
    doomed.api.refuses.clear()
    await until_gone(doomed)
    assert not left(doomed)


@pytest.mark.parametrize(
    ("kind", "name", "also"),
    [
        ("Namespace", "team", {}),
        ("CustomResourceDefinition", "mlflowservers.mlflow-operator.dev", {"deleted": "too"}),
    ],
)
async def test_where_all_around_goes_it_is_let_go_after_a_minute(
    doomed: World, kind: str, name: str, also: dict[str, Any]
) -> None:
    """Until then it is tried: a database elsewhere may well be reached."""
    version = "v1" if kind == "Namespace" else "apiextensions.k8s.io/v1"
    meta = {"name": name, "deletionTimestamp": doomed.now, "annotations": also}
    doomed.delete()
    doomed.api.put({"apiVersion": version, "kind": kind, "metadata": meta})
    await doomed.reconcile()
    assert resource(doomed), "there is time"
    doomed.now = "2026-01-01T00:01:00Z"
    await doomed.reconcile()
    assert resource(doomed) is None


async def test_stores_of_somebody_else_s_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them was made for this server, nor were the Secrets that open them."""
    world = await World.on_external_stores(monkeypatch)
    world.change(deletionPolicy="Delete")
    await world.reconcile()
    world.delete()
    await until_gone(world)
    assert world.get("Secret", "db")
    assert world.get("Secret", "keys")
    assert told(world)[-1][1] == (
        "Deleted, its data and passwords with it. Not this server's, and so untouched: the database of its spec; the "
        "artifacts at s3://models."
    )


async def test_what_does_not_carry_our_labels_stays(doomed: World) -> None:
    """A name alone proves nothing."""
    for kind, name in (("Secret", "a-artifacts"), ("PersistentVolumeClaim", "a-postgres-data")):
        doomed.api.edit(kind, name, lambda live: live["metadata"].update(labels={"app": "theirs"}))
    doomed.delete()
    await until_gone(doomed)
    assert left(doomed) == {("Secret", "a-artifacts"), ("PersistentVolumeClaim", "a-postgres-data")}


async def test_what_was_kept_is_told_once_the_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing holds it, so its last state comes from the watch."""
    world = await running(monkeypatch)
    was = resource(world)
    assert was
    world.delete()
    await retained_event.emit_retained_event(was, world.out())
    reason, message = told(world)[-1]
    assert reason == "DataKept"
    assert message == (
        'Deleted; its data is kept: PersistentVolumeClaims "a-artifacts-data", "a-postgres-data"; Secrets '
        '"a-artifacts", "a-database". An MLflowServer of the same name and storage in this namespace takes all of it '
        "back, with the same passwords."
    )


async def test_of_one_that_was_held_it_was_said_before(doomed: World) -> None:
    """The watch's last word on it comes after ours."""
    was = resource(doomed)
    assert was
    before = told(doomed)
    await retained_event.emit_retained_event(was, doomed.out())
    assert told(doomed) == before


async def test_in_a_namespace_that_goes_nothing_is_said_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not be true a moment later."""
    world = await running(monkeypatch)
    was = resource(world)
    assert was
    world.api.edit("Namespace", "team", lambda live: live["metadata"].update(deletionTimestamp=world.now))
    before = told(world)
    await retained_event.emit_retained_event(was, world.out())
    assert told(world) == before


async def test_outside_stores_are_named_as_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who deletes a server should know where its data is."""
    world = await World.on_external_stores(monkeypatch)
    was = resource(world)
    assert was
    world.delete()
    await retained_event.emit_retained_event(was, world.out())
    assert "the database one:5432/mlflow and the artifacts at s3://models" in told(world)[-1][1]
    assert EXTERNAL["artifacts"]["s3"]["bucket"] == "models"


async def test_a_role_that_may_not_hold_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made that might then stay behind unseen."""
    world = World(monkeypatch, DELETE)

    async def refuse(*_: object) -> Object:
        raise Forbidden("patch MLflowServer team/a: 403 Forbidden")

    monkeypatch.setattr(world.api, "json_patch", refuse)
    await world.reconcile()
    assert world.condition("Ready")[1] == "OperationRefused"
    assert not left(world)
