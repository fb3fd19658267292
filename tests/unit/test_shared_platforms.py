"""Reconciles that share the list of platforms: only those that check an earlier decision, and for at most a second."""

import asyncio
from collections.abc import Callable

import pytest

from mlflow_operator import api
from mlflow_operator.framework import platform_choice
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.shared_reads import MAX_AGE_SECONDS
from mlflow_operator.kube.objects import NamespacedName, Object
from mlflow_operator.reconciler import reconcile
from mlflow_operator.runtime.platform_users import PlatformUsers
from mlflow_operator.runtime.run import _Dispatcher
from tests.unit.api.platform_refusals import platform
from tests.unit.platform_simulation import PLATFORM, PlatformSimulation
from tests.unit.simulation import NAME, NAMESPACE
from tests.unit.virtual_time import in_virtual_time

NAMES = (NAME, "b", "c")
LIST = "MLflowPlatform"
BOTH = ["Artifacts", "Database"]


async def reconcile_all(simulation: PlatformSimulation, deps: Dependencies) -> int:
    """Reconcile all servers at the same time, and return how often the platforms were requested."""
    simulation.api.lists.clear()
    servers = [name for kind, name in simulation.api.objects if kind == api.KIND]
    await asyncio.gather(*(reconcile((NAMESPACE, name), deps) for name in servers))
    return simulation.api.lists.count(LIST)


def parts_of(simulation: PlatformSimulation, name: str = NAME) -> list[str] | None:
    """The recorded choice of a server; None if it uses no platform."""
    recorded: Object = simulation.api.objects[api.KIND, name]["status"].get("platform") or {}
    return recorded.get("parts")


@in_virtual_time
async def test_each_first_decision_requests_the_platforms() -> None:
    """Later reconciles of servers on platforms, and of others, need one request together."""
    simulation = PlatformSimulation()
    simulation.create_server({}, "b")
    simulation.create_server({"database": {"embedded": {}}, "artifacts": {"embedded": {}}}, "c")
    deps = simulation.process()
    assert await reconcile_all(simulation, deps) == 3
    await asyncio.sleep(MAX_AGE_SECONDS)
    assert await reconcile_all(simulation, deps) == 1
    assert await reconcile_all(simulation, deps) == 0
    await asyncio.sleep(MAX_AGE_SECONDS)
    assert await reconcile_all(simulation, deps) == 1


@in_virtual_time
async def test_platform_that_is_created_together_with_its_server_is_used() -> None:
    """Although a reconcile of another server has just read that there is no platform."""
    simulation = PlatformSimulation()
    simulation.delete_platform()
    deps = simulation.process()
    await simulation.reconcile(deps)
    await simulation.reconcile(deps)
    assert parts_of(simulation) is None
    simulation.put_platform(platform())
    simulation.create_server({}, "b")
    await reconcile((NAMESPACE, "b"), deps)
    assert parts_of(simulation, "b") == BOTH


@in_virtual_time
async def test_policy_that_is_created_together_with_a_server_counts_for_it() -> None:
    """From its first pod."""
    simulation = PlatformSimulation()
    deps = simulation.process()
    await simulation.reconcile(deps)
    await simulation.reconcile(deps)
    simulation.put_platform(platform(policy={"serversPerNamespace": 1}))
    simulation.create_server({}, "b")
    await reconcile((NAMESPACE, "b"), deps)
    (ready,) = simulation.api.objects[api.KIND, "b"]["status"]["conditions"]
    assert ready["reason"] == "PolicyViolation"


def switch_to_another(spec: Object) -> None:
    spec["platformRef"] = {"name": "another"}


def request_another_store(spec: Object) -> None:
    spec["database"] = {"platform": {}}


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        ({"storageChangePolicy": "Allow"}, switch_to_another),
        ({"storageChangePolicy": "Allow", "database": {"embedded": {}}}, request_another_store),
    ],
    ids=["another platform", "another store"],
)
def test_changed_request_is_a_new_decision(spec: Object, change: Callable[[Object], None]) -> None:
    """The platforms are requested for it, so that one which the user has just created is found."""

    @in_virtual_time
    async def check() -> None:
        simulation = PlatformSimulation(spec)
        deps = simulation.process()
        await simulation.reconcile(deps)
        await simulation.reconcile(deps)
        assert await reconcile_all(simulation, deps) == 0
        simulation.put_platform(platform(), "another", is_default=False)
        simulation.api.edit(api.KIND, NAME, lambda server: change(server["spec"]))
        assert await reconcile_all(simulation, deps) == 1
        assert parts_of(simulation) == BOTH

    check()


@in_virtual_time
async def test_server_with_an_adoption_always_requests_the_platforms() -> None:
    """An entry that was just removed must give it nothing."""
    simulation = PlatformSimulation(platform_spec=platform(adoptions=[f"{NAMESPACE}/{NAME}"]))
    simulation.create_server({}, "b")
    deps = simulation.process()
    await reconcile_all(simulation, deps)
    simulation.api.lists.clear()
    for _ in range(2):
        await simulation.reconcile(deps)
    assert simulation.api.lists.count(LIST) == 2
    await reconcile((NAMESPACE, "b"), deps)
    assert simulation.api.lists.count(LIST) == 2


@in_virtual_time
async def test_deletion_requests_the_platform() -> None:
    """What is deleted there is decided from its present state."""
    simulation = PlatformSimulation({"deletionPolicy": "Delete"})
    deps = simulation.process()
    for _ in range(2):
        await simulation.reconcile(deps)
    simulation.delete_server()
    simulation.api.reads.clear()
    await simulation.reconcile(deps)
    read = {f"{LIST}/{PLATFORM}", f"Namespace/{NAMESPACE}", "Secret/postgres-admin", "Secret/ca"}
    assert read <= {*simulation.api.reads}


class _Queue(list[NamespacedName]):
    """Records the keys that were added."""

    def add(self, key: NamespacedName) -> None:
        self.append(key)


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "changed"])
def test_reconcile_after_the_event_of_a_platform_requests_it_again(is_deleted: bool) -> None:
    """Otherwise, the change would count at the next resync only."""

    @in_virtual_time
    async def check() -> None:
        simulation, users, queue = PlatformSimulation(), PlatformUsers(), _Queue()
        deps = simulation.process()
        dispatcher = _Dispatcher(
            queue,  # type: ignore[arg-type]
            queue,  # type: ignore[arg-type]
            users,
            {},
            lambda: platform_choice.forget_platforms(deps),
        )
        for _ in range(2):
            result = await simulation.reconcile(deps)
        users.record((NAMESPACE, NAME), result.platforms)
        assert await reconcile_all(simulation, deps) == 0
        if is_deleted:
            dispatcher.on_deleted(("", PLATFORM), {})
        else:
            dispatcher.on_seen(("", PLATFORM), {"generation": 2})
        assert queue == [(NAMESPACE, NAME)]
        assert await reconcile_all(simulation, deps) == 1

    check()
