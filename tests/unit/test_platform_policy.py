"""The policies and the defaults of platforms, as a reconcile enforces and applies them."""

from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION
from mlflow_operator.status.conditions import Reason
from tests.unit.api.platform_refusals import platform
from tests.unit.platform_simulation import PLATFORM, PlatformSimulation
from tests.unit.simulation import (
    NAME,
    NAMESPACE,
    FakeObjectStore,
    FakePostgres,
    FakePostgresAdmin,
    FakeStoreAdmin,
    ProcessKilled,
)
from tests.unit.test_server_platform import BOTH, EMBEDDED, created, delete, ready_reason

NODE_PORT: Object = {"service": {"type": "NodePort"}}
VERSION = "3.17.2"
BACKUP: Object = {"schedule": "0 4 * * *", "s3": {"bucket": "backups", "endpoint": "https://s3.example.com"}}


class OwnStores(PlatformSimulation):
    """A server with embedded stores, and a platform that it does not use."""

    def __init__(self, platform_spec: Object | None = None, *, is_default: bool = True) -> None:
        super().__init__(EMBEDDED, platform_spec, is_default=is_default)
        self.postgres, self.postgres_admin = FakePostgres(), FakePostgresAdmin()
        self.store, self.store_admin = FakeObjectStore(), FakeStoreAdmin()


def simulate(spec: Object | None, platform_spec: Object | None = None) -> PlatformSimulation:
    """A new server and a platform."""
    return OwnStores(platform_spec) if spec == EMBEDDED else PlatformSimulation(spec, platform_spec)


async def ready(spec: Object | None = None) -> PlatformSimulation:
    """A Ready and stable server, and a platform."""
    simulation = simulate(spec)
    await simulation.reconcile_until_ready()
    return simulation


def restrict(simulation: PlatformSimulation, name: str = PLATFORM, **policy: Any) -> None:
    """Set the policy of the platform as a cluster administrator."""
    simulation.put_platform(platform(policy=policy), name)


def set_defaults(simulation: PlatformSimulation, **defaults: Any) -> None:
    """Set the server defaults of the platform as a cluster administrator."""
    simulation.put_platform(platform(serverDefaults=defaults))


def with_defaults(spec: Object | None = None, **defaults: Any) -> PlatformSimulation:
    """A new server and a platform with these server defaults."""
    return simulate(spec, platform(serverDefaults=defaults))


# Policies


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({"image": "evil"}, {"images": ["ghcr.io/mlflow"]}),
        (NODE_PORT, {}),
        ({"podTemplate": {"spec": {"serviceAccountName": "ci"}}}, {"serviceAccountNames": ["mlflow"]}),
        (EMBEDDED, {"stores": "PlatformOnly"}),
    ],
    ids=["image", "service", "service account", "stores"],
)
async def test_new_server_that_violates_the_policy_is_refused(spec: Object, policy: Object) -> None:
    """Nothing is created, no choice is recorded, and it continues soon after the cause is fixed."""
    simulation = PlatformSimulation(spec, platform(policy=policy))
    result = await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert result.requeue_after == 15
    assert created(simulation) == set()
    assert "platform" not in simulation.status
    assert [event[1] for event in simulation.events.published] == [Reason.POLICY_VIOLATION]
    simulation.api.edit(api.KIND, NAME, lambda obj: obj.update(spec={}))
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"] == BOTH


@pytest.mark.parametrize(
    ("spec", "policy", "field"),
    [
        ({}, {"images": ["registry.example.com/ml"]}, "spec.image"),
        (EMBEDDED, {"images": ["ghcr.io/mlflow"]}, "spec.database.embedded.image"),
    ],
)
async def test_default_image_must_be_allowed(spec: Object, policy: Object, field: str) -> None:
    """A running server continues, and one with an allowed image of its own, too."""
    simulation = simulate(spec, platform(policy=policy))
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert f"{field} is not set, and the default image" in simulation.condition("Ready")[2]
    assert created(simulation) == set()
    simulation.put_platform(platform())
    await simulation.reconcile_until_ready()
    before = created(simulation)
    restrict(simulation, **policy)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert created(simulation) == before
    restrict(simulation, images=["ghcr.io/mlflow", "docker.io", "quay.io/minio"])
    await simulation.reconcile_until_ready()


async def test_default_image_of_a_default_backup_must_be_allowed() -> None:
    """From the first reconcile on, in which the server takes the backup of the platform."""
    limited = platform(serverDefaults={"backup": BACKUP}, policy={"images": ["ghcr.io/mlflow"]})
    simulation = PlatformSimulation({}, limited)
    for _ in range(2):
        await simulation.reconcile()
        assert "spec.backup.image is not set" in simulation.condition("Ready")[2]
        assert created(simulation) == set()
    simulation.put_platform(platform(serverDefaults={"backup": BACKUP}))
    await simulation.reconcile()
    assert "backup" in simulation.status["platformDefaults"]
    simulation.put_platform(limited)
    await simulation.reconcile()
    assert "spec.backup.image is not set" in simulation.condition("Ready")[2]


@pytest.mark.parametrize("spec", [{}, EMBEDDED], ids=["platform's stores", "own stores"])
async def test_violation_of_a_running_server_changes_nothing(spec: Object) -> None:
    """Pods continue, the other conditions stay, and there is one Event."""
    simulation = await ready(spec)
    before, conditions = created(simulation), simulation.status["conditions"][1:]
    deployment = simulation.get("Deployment", NAME)
    simulation.update_spec(replicas=3, **NODE_PORT)
    simulation.events.published.clear()
    writes = len(simulation.api.writes)
    for _ in range(3):
        await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert f'MLflowPlatform "{PLATFORM}"' in simulation.condition("Ready")[2]
    assert simulation.api.writes[writes:] == [("apply_status", f"{api.KIND}/{NAME}")]
    assert [event[1] for event in simulation.events.published] == [Reason.POLICY_VIOLATION]
    assert simulation.status["conditions"][1:] == conditions
    assert (created(simulation), simulation.get("Deployment", NAME)) == (before, deployment)
    simulation.update_spec(service={"type": "ClusterIP"})
    await simulation.reconcile_until_ready()


async def test_policy_applies_to_servers_that_existed_before() -> None:
    """Also to those with stores of their own, which never used a platform."""
    simulation = OwnStores()
    simulation.delete_platform()
    await simulation.reconcile_until_ready()
    restrict(simulation, stores="PlatformOnly")
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert "spec.database uses embedded" in simulation.condition("Ready")[2]
    simulation.recreate_namespace(NAMESPACE + "-1", {})
    await simulation.reconcile_until_ready()


async def test_server_cannot_escape_a_policy_by_naming_another_platform() -> None:
    simulation = PlatformSimulation({"platformRef": {"name": "lax"}, **NODE_PORT})
    simulation.put_platform(platform(policy={"serviceTypes": ["NodePort"]}), "lax", is_default=False)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    simulation.delete_platform()
    await simulation.reconcile_until_ready()


async def test_violating_server_can_be_deleted() -> None:
    simulation = await ready({"deletionPolicy": "Delete"})
    simulation.update_spec(**NODE_PORT)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None


async def test_server_beyond_the_limit_waits_until_there_is_room() -> None:
    simulation = PlatformSimulation(platform_spec=platform(policy={"serversPerNamespace": 1}))
    simulation.api.put(
        {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "metadata": {"name": "0-older", "namespace": NAMESPACE, "creationTimestamp": ""},
        }
    )
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.POLICY_VIOLATION)
    assert created(simulation) == set()
    del simulation.api.objects[api.KIND, "0-older"]
    await simulation.reconcile_until_ready()


@pytest.mark.parametrize(
    ("labels", "is_refused"), [(None, True), ({}, False)], ids=["selected", "not selected"]
)
async def test_invalid_platform_stops_only_servers_that_it_may_limit(
    labels: dict[str, str] | None, is_refused: bool
) -> None:
    """A field of it may be invalid since an upgrade of the operator."""
    simulation = OwnStores(is_default=False)
    simulation.recreate_namespace(NAMESPACE + "-1", labels)
    simulation.put_platform(platform(policy={"stores": "Unknown"}), "invalid", is_default=False)
    await simulation.reconcile()
    assert (ready_reason(simulation)[1] == Reason.PLATFORM_NOT_FOUND) == is_refused
    assert (created(simulation) == set()) == is_refused


# Requests


async def requests_at_rest(simulation: PlatformSimulation, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that a reconcile without changes requests of what decides about platforms."""
    requested: list[str] = []
    get, list_ = simulation.api.get, simulation.api.list

    async def count_get(kind: Kind, *args: Any, **options: Any) -> Object | None:
        requested.append(kind.kind)
        return await get(kind, *args, **options)

    async def count_list(kind: Kind, *args: Any, **options: Any) -> list[Object]:
        requested.append(kind.kind)
        with monkeypatch.context() as patch:  # the simulation lists with `get`
            patch.setattr(simulation.api, "get", get)
            return await list_(kind, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(simulation.api, "get", count_get)
        patch.setattr(simulation.api, "list", count_list)
        await simulation.reconcile()
    decisive = {kinds.MLFLOWPLATFORM.kind, kinds.NAMESPACE.kind, kinds.MLFLOWSERVER.kind}
    return sorted(kind for kind in requested if kind in decisive)


async def test_few_requests_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without platforms, two with them, three with a limit for the number of servers."""
    simulation = simulate(EMBEDDED)
    simulation.delete_platform()
    await simulation.reconcile_until_ready()
    own = "MLflowServer"
    assert await requests_at_rest(simulation, monkeypatch) == ["MLflowPlatform", own]
    restrict(simulation)
    assert await requests_at_rest(simulation, monkeypatch) == ["MLflowPlatform", own, "Namespace"]
    restrict(simulation, serversPerNamespace=1)
    assert await requests_at_rest(simulation, monkeypatch) == ["MLflowPlatform", own, own, "Namespace"]
    simulation = await ready()
    assert await requests_at_rest(simulation, monkeypatch) == ["MLflowPlatform", own, "Namespace"]


# Defaults


def server_pod(simulation: PlatformSimulation) -> Object:
    """The pod template of the server."""
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    template: Object = deployment["spec"]["template"]
    return template


@pytest.mark.parametrize("spec", [{}, EMBEDDED], ids=["platform's stores", "own stores"])
async def test_new_server_takes_the_defaults(spec: Object) -> None:
    """Also with stores of its own in a namespace of the default platform."""
    metadata = {"labels": {"example.com/cost-center": "42"}}
    simulation = with_defaults(
        spec,
        version=VERSION,
        imagePullSecrets=[{"name": "registry"}],
        podMetadata=metadata,
        backup=BACKUP,
        garbageCollection={},
    )
    await simulation.reconcile_until_ready()
    pod = server_pod(simulation)
    assert f"v{VERSION}-full" in pod["spec"]["containers"][0]["image"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["metadata"]["labels"]["example.com/cost-center"] == "42"
    assert {name for kind, name in simulation.api.objects if kind == "CronJob"} == {
        f"{NAME}-backup",
        f"{NAME}-gc",
    }
    taken = simulation.status["platformDefaults"]
    assert (taken["platform"], taken["version"]) == (PLATFORM, VERSION)
    assert taken["podMetadata"] == metadata
    assert taken["backup"]["schedule"] == BACKUP["schedule"]
    assert taken["garbageCollection"]["olderThan"] == "720h"
    assert simulation.status["version"] == VERSION
    writes = len(simulation.api.writes)
    await simulation.reconcile()
    assert len(simulation.api.writes) == writes


async def test_defaults_are_recorded_before_anything_is_created() -> None:
    """Together with the choice of the platform. An edit between two reconciles changes nothing."""
    simulation = with_defaults(version=VERSION)
    simulation.api.crash_after_writes = 1
    with pytest.raises(ProcessKilled):
        await simulation.reconcile()
    assert simulation.status["platform"] == BOTH
    assert simulation.status["platformDefaults"] == {"platform": PLATFORM, "version": VERSION}
    simulation.api.crash_after_writes = None
    set_defaults(simulation, version="3.16.0")
    await simulation.reconcile_until_ready()
    assert simulation.status["version"] == VERSION


@pytest.mark.parametrize("spec", [{}, EMBEDDED], ids=["platform's stores", "own stores"])
async def test_edit_of_a_platform_changes_no_existing_server(spec: Object) -> None:
    """No pods restart, no database is migrated, and no data is deleted. Nor if the platform disappears."""
    simulation = await ready(spec)
    deployment, before = simulation.get("Deployment", NAME), {*simulation.api.objects}
    set_defaults(
        simulation,
        version="3.16.0",
        imagePullSecrets=[{"name": "registry"}],
        podMetadata={"labels": {"a": "b"}},
        backup=BACKUP,
        garbageCollection={},
    )
    await simulation.reconcile_until_ready()
    assert simulation.get("Deployment", NAME) == deployment
    assert {*simulation.api.objects} == before
    assert "platformDefaults" not in simulation.status
    assert simulation.status["version"] == DEFAULT_VERSION


async def test_taken_defaults_stay_if_the_platform_changes_or_disappears() -> None:
    simulation = with_defaults(EMBEDDED, version=VERSION, podMetadata={"labels": {"a": "b"}})
    await simulation.reconcile_until_ready()
    deployment = simulation.get("Deployment", NAME)
    set_defaults(simulation)
    await simulation.reconcile_until_ready()
    simulation.delete_platform()
    await simulation.reconcile_until_ready()
    assert simulation.get("Deployment", NAME) == deployment
    assert simulation.status["platformDefaults"]["version"] == VERSION


async def test_value_that_the_server_sets_later_takes_precedence() -> None:
    simulation = with_defaults(version="3.16.0", podMetadata={"labels": {"a": "b", "c": "d"}})
    await simulation.reconcile_until_ready()
    simulation.update_spec(version=VERSION, podTemplate={"metadata": {"labels": {"a": "mine"}}})
    await simulation.reconcile_until_ready()
    assert simulation.status["version"] == VERSION
    labels = server_pod(simulation)["metadata"]["labels"]
    assert (labels["a"], labels["c"]) == ("mine", "d")
    del simulation.api.objects[api.KIND, NAME]["spec"]["version"]
    await simulation.reconcile_until_ready()
    assert simulation.status["version"] == VERSION


async def test_server_that_is_created_again_keeps_the_version_of_its_data() -> None:
    """A default of a platform migrates no database."""
    simulation = await ready({"version": VERSION})
    simulation.delete_server()
    set_defaults(simulation, version=DEFAULT_VERSION)
    simulation.create_server({})
    await simulation.reconcile_until_ready()
    assert simulation.status["version"] == VERSION


@pytest.mark.parametrize("other", [False, True], ids=["not the default", "two defaults"])
async def test_only_the_one_default_platform_gives_defaults_to_servers_with_own_stores(other: bool) -> None:
    simulation = PlatformSimulation(
        EMBEDDED, platform(serverDefaults={"garbageCollection": {}}), is_default=other
    )
    if other:
        simulation.put_platform(platform(), "other")
    await simulation.reconcile()
    assert "platformDefaults" not in simulation.status
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


async def test_unknown_recorded_default_pauses_the_server_until_its_spec_sets_the_field() -> None:
    """A newer version of the operator recorded it."""
    simulation = with_defaults(EMBEDDED, garbageCollection={"mode": "DryRun"})
    await simulation.reconcile_until_ready()
    simulation.api.edit(
        api.KIND,
        NAME,
        lambda obj: obj["status"]["platformDefaults"]["garbageCollection"].update(mode="New"),
    )
    await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", Reason.INVALID_RESOURCE)
    assert "status.platformDefaults.garbageCollection.mode" in message
    simulation.update_spec(garbageCollection={})
    await simulation.reconcile_until_ready()
