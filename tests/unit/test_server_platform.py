"""An MLflowServer on a platform: which one it uses, what it gets there, and what it never gets."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import Conflict, Forbidden, NotFound
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.model import provisioning
from mlflow_operator.model.server import ServerRef
from mlflow_operator.platforms.checks import Checks
from mlflow_operator.platforms.reconcile import reconcile as reconcile_platform
from mlflow_operator.status.conditions import Reason
from tests.unit.api.platform_refusals import platform, postgres, s3, without
from tests.unit.platform_simulation import (
    CA,
    PLATFORM,
    PLATFORM_NAMESPACE,
    ROOT,
    SELECTED,
    PlatformSimulation,
)
from tests.unit.simulation import NAME, NAMESPACE, ProcessKilled, SimulatedCluster

BOTH: Object = {"name": PLATFORM, "uid": f"platform-{PLATFORM}", "parts": ["Artifacts", "Database"]}
EMBEDDED: Object = {"database": {"embedded": {}}, "artifacts": {"embedded": {}}}
DELETE: Object = {"deletionPolicy": "Delete"}
ADOPTIONS = [f"{NAMESPACE}/{NAME}"]
CREATED = ("Secret", "StatefulSet", "Service", "Deployment", "ConfigMap", "PersistentVolumeClaim", "Job")


async def ready(spec: Object | None = None, platform_spec: Object | None = None) -> PlatformSimulation:
    """A Ready and stable server on the platform."""
    simulation = PlatformSimulation(spec, platform_spec)
    await simulation.reconcile_until_ready()
    return simulation


def created(simulation: PlatformSimulation) -> set[tuple[str, str]]:
    """What the operator created in the namespace of the server."""
    return {
        key
        for key, obj in simulation.api.objects.items()
        if key[0] in CREATED and obj["metadata"].get("namespace") == NAMESPACE
    }


def ready_reason(simulation: PlatformSimulation) -> tuple[str, str]:
    """Status and reason of Ready."""
    return simulation.condition("Ready")[:2]


# The choice


async def test_server_without_a_choice_uses_the_default_platform() -> None:
    simulation = await ready()
    assert simulation.status["platform"] == BOTH
    assert (await simulation.reconcile()).platforms == {PLATFORM}
    assert simulation.status["database"] == {
        "type": "Platform",
        "host": "postgres.mlflow-platform.svc",
        "port": 5432,
        "name": f"mlflow_{NAMESPACE}_{NAME}",
    }
    assert simulation.status["artifacts"] == {
        "type": "Platform",
        "uri": f"s3://mlflow/{NAMESPACE}/{NAME}",
        "endpoint": "https://minio.mlflow-platform.svc:9000",
    }
    assert not {name for kind, name in created(simulation) if kind == "StatefulSet"}


async def test_choice_is_recorded_before_anything_is_created() -> None:
    simulation = PlatformSimulation()
    await simulation.reconcile()
    assert simulation.api.writes[0] == ("apply_status", f"{api.KIND}/{NAME}")


async def test_interrupted_reconcile_keeps_the_recorded_choice() -> None:
    """Although another default platform appears."""
    simulation = PlatformSimulation()
    simulation.api.crash_after_writes = 1
    with pytest.raises(ProcessKilled):
        await simulation.reconcile()
    simulation.api.crash_after_writes = None
    simulation.put_platform(platform(), "other")
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"] == BOTH


async def test_nothing_is_written_at_rest() -> None:
    simulation = await ready()
    writes = len(simulation.api.writes)
    await simulation.reconcile()
    assert len(simulation.api.writes) == writes


@pytest.mark.parametrize(
    ("spec", "platform_spec", "parts"),
    [
        ({}, without("artifacts"), ["Database"]),
        ({}, without("database"), ["Artifacts"]),
        ({"database": {"embedded": {}}}, platform(), ["Artifacts"]),
        ({"database": {"platform": {}}, "artifacts": {"embedded": {}}}, platform(), ["Database"]),
        ({"artifacts": {"access": "Proxied"}}, platform(), ["Artifacts", "Database"]),
    ],
    ids=["database offered", "artifacts offered", "artifacts open", "explicit database", "access only"],
)
async def test_only_open_and_offered_parts_come_from_the_platform(
    spec: Object, platform_spec: Object, parts: list[str]
) -> None:
    simulation = PlatformSimulation(spec, platform_spec)
    await simulation.reconcile()
    assert simulation.status["platform"]["parts"] == parts
    stateful_sets = {name for kind, name in created(simulation) if kind == "StatefulSet"}
    assert (f"{NAME}-postgres" in stateful_sets) == ("Database" not in parts)
    assert (f"{NAME}-artifacts" in stateful_sets) == ("Artifacts" not in parts)


@pytest.mark.parametrize("spec", [EMBEDDED, {}], ids=["embedded stores", "no selected namespace"])
async def test_server_without_a_platform_is_embedded(spec: Object) -> None:
    simulation = PlatformSimulation(spec)
    if not spec:
        simulation.recreate_namespace("other", {})
    await simulation.reconcile()
    assert "platform" not in simulation.status
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


async def test_platform_that_appears_later_moves_no_server() -> None:
    """The choice counts from the first reconcile, not from the first running pod."""
    simulation = PlatformSimulation(is_default=False)
    await simulation.reconcile()
    simulation.put_platform(platform())
    await simulation.reconcile()
    assert "platform" not in simulation.status
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


@pytest.mark.parametrize("stores", ["embedded", "own"])
async def test_running_server_only_requests_which_platforms_limit_it(
    stores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default platform that appears changes nothing for it."""
    own = stores == "own"
    simulation = await (SimulatedCluster.with_external_stores() if own else SimulatedCluster.ready())
    metadata = {"name": NAMESPACE, "uid": "1", "labels": SELECTED}
    simulation.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    metadata = {"name": PLATFORM, "uid": "1", "annotations": {DEFAULT_ANNOTATION: "true"}}
    simulation.api.put({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": platform()})
    requested: list[Kind] = []
    for verb in ("get", "list"):
        monkeypatch.setattr(simulation.api, verb, recording(getattr(simulation.api, verb), requested))
    before, writes = dict(simulation.api.objects), len(simulation.api.writes)
    await simulation.reconcile()
    assert (requested.count(kinds.MLFLOWPLATFORM), requested.count(kinds.NAMESPACE)) == (1, 1)
    assert simulation.api.objects == before
    assert len(simulation.api.writes) == writes


def recording(request: Any, requested: list[Kind]) -> Any:
    """The request, which also records its kind."""

    async def record(kind: Kind, *arguments: Any, **options: Any) -> Any:
        requested.append(kind)
        return await request(kind, *arguments, **options)

    return record


async def test_refused_server_stays_embedded() -> None:
    """It has started, even if nothing was created for it yet, and no default platform that appears then is used."""
    spec = {"database": {"external": {"uriSecretRef": {"name": "missing"}}}}
    simulation = PlatformSimulation(spec, is_default=False)
    await simulation.reconcile()
    simulation.update_spec(workers="many")
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.INVALID_RESOURCE)
    simulation.put_platform(platform())
    simulation.update_spec(workers=1)
    await simulation.reconcile()
    assert "platform" not in simulation.status


@pytest.mark.parametrize("is_default", [True, False], ids=["still default", "no default"])
async def test_other_default_platform_does_not_concern_a_server_with_a_platform(is_default: bool) -> None:
    simulation = await ready()
    simulation.put_platform(platform(), is_default=is_default)
    simulation.put_platform(postgres(host="other.example.com"), "other")
    writes = len(simulation.api.writes)
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"] == BOTH
    assert len(simulation.api.writes) == writes


async def test_named_platform_is_used_without_being_the_default() -> None:
    simulation = PlatformSimulation({"platformRef": {"name": PLATFORM}}, is_default=False)
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"] == BOTH


@pytest.mark.parametrize("spec", [{}, {"platformRef": {"name": PLATFORM}}], ids=["default", "named"])
async def test_volume_of_an_earlier_server_is_not_forgotten(spec: Object) -> None:
    """A server that is created again finds its data. With an explicit platform, the user must decide."""
    simulation = PlatformSimulation(spec)
    metadata = {
        "name": f"{NAME}-postgres-data",
        "namespace": NAMESPACE,
        "labels": labels.for_data(NAME, labels.DATABASE_POD),
    }
    simulation.api.put(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}}
    )
    await simulation.reconcile()
    if spec:
        assert ready_reason(simulation) == ("False", Reason.STORAGE_CHANGE_REFUSED)
        assert "spec.database.platform to {}" in simulation.condition("Ready")[2]
    else:
        assert simulation.status["platform"]["parts"] == ["Artifacts"]


# Refusals


def delete_later(simulation: PlatformSimulation, name: str = PLATFORM) -> None:
    """Mark a platform for deletion, which other servers that use it delay."""
    simulation.api.edit(
        KIND, name, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )


@pytest.mark.parametrize(
    ("spec", "labels_of_namespace", "reason"),
    [
        ({"platformRef": {"name": "missing"}}, None, Reason.PLATFORM_NOT_FOUND),
        ({"platformRef": {"name": PLATFORM}}, {}, Reason.PLATFORM_NOT_ALLOWED),
        ({"database": {"platform": {}}}, {}, Reason.PLATFORM_NOT_FOUND),
    ],
    ids=["missing", "not allowed", "no default"],
)
async def test_server_waits_for_its_platform(
    spec: Object, labels_of_namespace: dict[str, str] | None, reason: Reason
) -> None:
    """Nothing is created, and it continues soon after an administrator has fixed the cause."""
    simulation = PlatformSimulation(spec)
    if labels_of_namespace is not None:
        simulation.recreate_namespace("other", labels_of_namespace)
    result = await simulation.reconcile()
    assert ready_reason(simulation) == ("False", reason)
    assert result.requeue_after == 15
    assert result.platforms == {spec[field]["name"] for field in spec if field == "platformRef"}
    assert created(simulation) == set()
    assert [event[1] for event in simulation.events.published] == [reason]
    simulation.put_platform(platform(), "missing", is_default=False)
    simulation.recreate_namespace("other")
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"]["parts"]


@pytest.mark.parametrize("spec", [{}, {"platformRef": {"name": PLATFORM}}], ids=["default", "named"])
async def test_platform_that_is_being_deleted_gets_no_new_servers(spec: Object) -> None:
    simulation = PlatformSimulation(spec)
    delete_later(simulation)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.PLATFORM_NOT_FOUND)
    message = simulation.condition("Ready")[2]
    assert f'MLflowPlatform "{PLATFORM}"' in message
    assert "is being deleted" in message
    assert "spec.platformRef" in message
    assert created(simulation) == set()
    assert "platform" not in simulation.status


async def test_server_is_embedded_once_its_default_platform_is_deleted() -> None:
    """Until then it waits: a server that was embedded meanwhile would stay embedded for ever."""
    simulation = PlatformSimulation()
    delete_later(simulation)
    result = await simulation.reconcile()
    assert result.requeue_after == 15
    del simulation.api.objects[KIND, PLATFORM]
    await simulation.reconcile_until_stable()
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


async def test_default_platform_that_is_being_deleted_does_not_hide_another() -> None:
    simulation = PlatformSimulation()
    simulation.put_platform(platform(), "other")
    delete_later(simulation, "other")
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"]["name"] == PLATFORM


@pytest.mark.parametrize(
    "spec", [{"database": {"embedded": {}}, "artifacts": {"embedded": {}}}, {"artifacts": {"embedded": {}}}]
)
async def test_default_platform_that_is_being_deleted_concerns_only_servers_that_would_use_it(
    spec: Object,
) -> None:
    simulation = PlatformSimulation(spec, without("database"))
    delete_later(simulation)
    await simulation.reconcile()
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


async def test_server_keeps_working_on_a_platform_that_is_being_deleted() -> None:
    simulation = await ready()
    delete_later(simulation)
    await simulation.reconcile_until_ready()


async def test_two_default_platforms_make_the_server_wait() -> None:
    """It would be embedded for ever, although the administrators wanted something else."""
    simulation = PlatformSimulation()
    simulation.put_platform(platform(), "other")
    assert (await simulation.reconcile()).requeue_after == 15
    assert ready_reason(simulation) == ("False", Reason.DEFAULT_PLATFORM_CONFLICT)
    assert '"other" and "shared"' in simulation.condition("Ready")[2]
    assert created(simulation) == set()


async def test_invalid_default_platform_makes_the_server_wait() -> None:
    simulation = PlatformSimulation(platform_spec={"secretsNamespace": "x"})
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.PLATFORM_NOT_FOUND)
    assert created(simulation) == set()


@pytest.mark.parametrize(
    "error", [Forbidden("list: 403"), NotFound("list: 404")], ids=["forbidden", "no CRD"]
)
async def test_server_is_embedded_only_if_there_certainly_is_no_platform(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator without the permission does not know. Without the CRD there is none."""
    simulation = PlatformSimulation()
    listed = simulation.api.list

    async def fail(kind: Kind, *args: Any, **options: Any) -> list[Object]:
        if kind == kinds.MLFLOWPLATFORM:
            raise error
        return await listed(kind, *args, **options)

    monkeypatch.setattr(simulation.api, "list", fail)
    await simulation.reconcile()
    if isinstance(error, Forbidden):
        assert ready_reason(simulation) == ("False", Reason.OPERATION_REFUSED)
        assert created(simulation) == set()
    else:
        assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)


async def test_store_that_the_platform_does_not_offer_is_refused() -> None:
    simulation = PlatformSimulation({"database": {"platform": {}}}, without("database"))
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.PLATFORM_NOT_ALLOWED)
    assert "offers no database" in simulation.condition("Ready")[2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("deleted", Reason.PLATFORM_NOT_FOUND),
        ("deselected", Reason.PLATFORM_NOT_ALLOWED),
        ("moved", Reason.STORAGE_CHANGE_REFUSED),
        ("invalid", Reason.PLATFORM_NOT_FOUND),
        ("incomplete", Reason.PLATFORM_NOT_ALLOWED),
    ],
)
async def test_running_server_keeps_its_pods_and_conditions_without_its_platform(
    change: str, reason: Reason
) -> None:
    """The platform is deleted by force, for example. There is one Event when it begins and one when it ends."""
    simulation = await ready()
    before, conditions = created(simulation), simulation.status["conditions"]
    simulation.events.published.clear()
    if change == "deleted":
        simulation.delete_platform()
    elif change == "deselected":
        simulation.recreate_namespace(NAMESPACE + "-1", {})
    else:
        changed = {
            "moved": postgres(host="other.example.com"),
            "invalid": postgres(host="short"),
            "incomplete": without("database"),
        }
        simulation.put_platform(changed[change])
    writes = len(simulation.api.writes)
    for _ in range(3):
        await simulation.reconcile()
    assert ready_reason(simulation) == ("False", reason)
    assert PLATFORM in simulation.condition("Ready")[2]
    assert simulation.status["conditions"][1:] == conditions[1:]
    assert (await simulation.reconcile()).platforms == {PLATFORM}
    assert simulation.api.writes[writes:] == [("apply_status", f"{api.KIND}/{NAME}")]
    assert created(simulation) == before
    assert simulation.status["platform"] == BOTH
    simulation.recreate_namespace(NAMESPACE + "-1")
    simulation.put_platform(platform())
    await simulation.reconcile_until_ready()
    assert [event[:2] for event in simulation.events.published] == [(False, reason), (True, Reason.READY)]


# Changes


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        (EMBEDDED, {"database": {"platform": {}}}),
        (EMBEDDED, {"artifacts": {"platform": {}}}),
        ({}, {"database": {"embedded": {}}}),
        ({}, {"artifacts": {"embedded": {}}}),
        ({}, {"platformRef": {"name": "other"}}),
    ],
)
async def test_store_changes_only_with_permission(spec: Object, changed: Object) -> None:
    simulation = PlatformSimulation(spec)
    simulation.put_platform(postgres(host="other.example.com"), "other", is_default=False)
    await simulation.reconcile()
    simulation.api.edit(
        api.KIND, NAME, lambda obj: obj["status"].update(database={"host": "h", "name": "n", "type": "t"})
    )
    before = simulation.status.get("platform")
    simulation.update_spec(**changed)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.STORAGE_CHANGE_REFUSED)
    assert simulation.status.get("platform") == before
    simulation.update_spec(storageChangePolicy="Allow")
    await simulation.reconcile()
    assert simulation.status.get("platform") != before


OLD_DATABASE = f"postgres.mlflow-platform.svc:5432/mlflow_{NAMESPACE}_{NAME}"
OLD_STORE = f"s3://mlflow/{NAMESPACE}/{NAME} at https://minio.mlflow-platform.svc:9000"


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        (postgres(host="other.example.com"), OLD_DATABASE, "other.example.com:5432"),
        (postgres(port=5433), OLD_DATABASE, "postgres.mlflow-platform.svc:5433"),
        (s3(bucket="other"), OLD_STORE, f"s3://other/{NAMESPACE}/{NAME} at"),
        (s3(prefix="a/{namespace}/{name}"), OLD_STORE, f"s3://mlflow/a/{NAMESPACE}/{NAME} at"),
        (s3(endpoint="https://other.example.com"), OLD_STORE, "at https://other.example.com"),
    ],
    ids=["host", "port", "bucket", "prefix", "endpoint"],
)
async def test_change_of_the_platform_moves_no_server(changed: Object, old: str, new: str) -> None:
    """The condition names both locations."""
    simulation = await ready()
    deployment = simulation.get("Deployment", NAME)
    simulation.put_platform(changed)
    await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", Reason.STORAGE_CHANGE_REFUSED)
    assert new in message.partition(", and the server uses ")[0]
    assert f"the server uses {old}" in message
    assert simulation.get("Deployment", NAME) == deployment
    simulation.put_platform(platform())
    await simulation.reconcile_until_ready()


async def test_explicit_choice_of_the_same_stores_changes_nothing() -> None:
    simulation = await ready()
    deployment = simulation.get("Deployment", NAME)
    simulation.update_spec(database={"platform": {}}, artifacts={"platform": {}})
    await simulation.reconcile_until_ready()
    assert simulation.get("Deployment", NAME) == deployment
    assert simulation.status["platform"] == BOTH


# Credentials


async def test_administrator_connects_with_verified_tls_and_scram_only() -> None:
    """Also if the namespace of the server resolves the platform's hosts to Services of its own."""
    simulation = PlatformSimulation()
    simulation.resolver.service_addresses = {
        "postgres.mlflow-platform.svc": "10.0.0.66",
        "minio.mlflow-platform.svc": "10.0.0.66",
    }
    await simulation.reconcile_until_ready()
    assert simulation.admin.admins
    for admin, ca_path in simulation.admin.admins:
        assert (admin.host, admin.port, admin.username) == ("postgres.mlflow-platform.svc", 5432, "admin")
        assert dict(admin.options) == {"sslmode": "verify-full", "require_auth": "scram-sha-256"}
        assert ca_path
    assert simulation.minio.endpoints == {"https://minio.mlflow-platform.svc:9000"}
    assert all("hostaddr" not in dict(c.options) for c in simulation.postgres.connections)


async def test_server_applies_no_settings_of_the_shared_bucket() -> None:
    """Fifty servers would overwrite each other's lifecycle rules. Its own uploads request the encryption."""
    simulation = PlatformSimulation(
        platform_spec=s3(
            versioning="Enabled",
            lifecycle={"noncurrentVersionExpirationDays": 30},
            encryption={"type": "SSES3"},
        )
    )
    simulation.minio.encryption = '{"ServerSideEncryption": "AES256"}'
    await simulation.reconcile_until_ready()
    assert simulation.minio.applied_settings == []
    assert "AES256" in str(simulation.get("Deployment", NAME))


async def test_pods_read_no_secret_of_the_platform() -> None:
    """Its CA is copied; everything else in the namespace is generated for the server."""
    simulation = await ready()
    assert simulation.secret(f"{NAME}-server")["database-ca.crt"] == CA
    administrators = {simulation.admin.password, ROOT.secret}
    for kind, name in created(simulation):
        if kind == "Secret":
            assert not administrators & {*simulation.secret(name).values()}
        else:
            names = {"postgres-admin", "minio-admin", *administrators}
            assert not [text for text in names if text in str(simulation.get(kind, name))]


async def test_changed_ca_reaches_the_pods() -> None:
    simulation = await ready(platform_spec=s3(tls={"caSecretRef": {"name": "ca"}}))
    deployment = simulation.get("Deployment", NAME)
    simulation.put_platform_secret("ca", **{"ca.crt": f"{CA} new"})
    await simulation.reconcile_until_ready()
    assert simulation.secret(f"{NAME}-server")["artifacts-ca.crt"] == f"{CA} new"
    assert simulation.get("Deployment", NAME) != deployment


async def test_reference_in_a_spec_gets_no_secret_of_a_platform() -> None:
    """Even if the same reconcile reads this Secret for the platform, and the API server has not dropped the field."""
    admin = {"name": "postgres-admin", "namespace": PLATFORM_NAMESPACE}
    simulation = PlatformSimulation({"database": {"provision": {"host": "evil", "adminSecretRef": admin}}})
    await simulation.reconcile()
    assert simulation.condition("DatabaseReady")[1] == Reason.SECRET_NOT_FOUND
    assert simulation.admin.admins == []
    minio_admin = {"name": "minio-admin", "namespace": PLATFORM_NAMESPACE}
    simulation = PlatformSimulation(
        {
            "artifacts": {
                "s3": {"bucket": "mlflow", "endpoint": "http://evil:9000", "adminSecretRef": minio_admin}
            }
        }
    )
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[1] == Reason.SECRET_NOT_FOUND
    assert simulation.minio.endpoints == set()


@pytest.mark.parametrize("name", ["postgres-admin", "minio-admin", "ca"])
async def test_missing_secret_names_platform_and_field(name: str) -> None:
    simulation = PlatformSimulation()
    del simulation.api.objects["Secret", name]
    await simulation.reconcile()
    _, reason, message = simulation.condition("Ready")
    assert reason == Reason.SECRET_NOT_FOUND
    assert f'"{name}" in namespace {PLATFORM_NAMESPACE}' in message
    assert f"MLflowPlatform {PLATFORM}, spec." in message


async def test_key_covers_only_the_own_prefix() -> None:
    """Not even a location that the spec named before, and that a pod still uses."""
    simulation = PlatformSimulation({"artifacts": {"platform": {}}, "storageChangePolicy": "Allow"})
    await simulation.reconcile()
    uri, endpoint = "s3://mlflow/team-b/victim", "https://minio.mlflow-platform.svc:9000"
    simulation.api.edit(
        api.KIND,
        NAME,
        lambda obj: obj["status"].update(artifacts={"uri": uri, "endpoint": endpoint}),
    )
    env = [
        {"name": "MLFLOW_ARTIFACTS_DESTINATION", "value": uri},
        {"name": "MLFLOW_S3_ENDPOINT_URL", "value": endpoint},
    ]
    metadata = {
        "name": "earlier",
        "namespace": NAMESPACE,
        "labels": labels.for_component(NAME, labels.SERVER_POD),
    }
    pod: Object = {"metadata": metadata, "spec": {"containers": [{"name": "mlflow", "env": env}]}}
    simulation.api.put({"apiVersion": "v1", "kind": "Pod", **pod, "status": {"phase": "Running"}})
    await simulation.reconcile_until_stable()
    assert simulation.status["artifacts"]["previousLocations"] == [{"uri": uri, "endpoint": endpoint}]
    assert simulation.covered() == {"arn:aws:s3:::mlflow", f"arn:aws:s3:::mlflow/{NAMESPACE}/{NAME}/*"}


# Identity


def recreate(simulation: PlatformSimulation, uid: str = "another-uid") -> None:
    """Delete the namespace with everything in it, and create another one of the same name with the same server."""
    for key, obj in list(simulation.api.objects.items()):
        if obj["metadata"].get("namespace") == NAMESPACE:
            del simulation.api.objects[key]
    simulation.recreate_namespace(uid)
    simulation.create_server({})


def used_adoptions(simulation: PlatformSimulation) -> list[tuple[str, str]]:
    """The entries in the status of the platform."""
    status = simulation.api.objects[KIND, PLATFORM].get("status", {})
    return [(used["server"], used["namespaceUID"]) for used in status.get("adoptions", ())]


async def adoptable(uid: str = "another-uid") -> PlatformSimulation:
    """A recreated namespace whose server is listed in spec.adoptions, before its first reconcile."""
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "mine"
    recreate(simulation, uid)
    simulation.put_platform(platform(adoptions=ADOPTIONS))
    simulation.events.published.clear()
    return simulation


def assert_not_adopted(simulation: PlatformSimulation) -> None:
    """The database and the policy still belong to the first namespace."""
    assert simulation.policy()["ID"].endswith(f"in namespace {NAMESPACE}-1")
    assert simulation.admin.database
    assert f"{NAMESPACE}-1" in simulation.admin.database.marker


async def test_recreated_namespace_gets_nothing_back_without_adoption() -> None:
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "secret"
    users, database = dict(simulation.minio.users), simulation.admin.database
    recreate(simulation)
    await simulation.reconcile()
    for condition in ("DatabaseReady", "ArtifactStoreReady"):
        status, reason, message = simulation.condition(condition)
        assert (status, reason) == ("False", Reason.ADOPTION_REQUIRED)
        assert f'add "{NAMESPACE}/{NAME}" to spec.adoptions of MLflowPlatform "{PLATFORM}"' in message
    assert simulation.minio.users == users
    assert simulation.admin.database == database
    assert simulation.policy()["ID"].endswith(f"in namespace {NAMESPACE}-1")


@pytest.mark.parametrize("spec", [{}, {"artifacts": {"embedded": {}}}, {"database": {"embedded": {}}}])
async def test_reconcile_that_outlives_its_namespace_grants_nothing(
    spec: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the generated Secret into the new namespace, whose users must not get access with it."""
    simulation = PlatformSimulation(spec)
    get, requested = simulation.api.get, 0

    async def get_recreated(
        kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        nonlocal requested
        if (kind, name) == (kinds.NAMESPACE, NAMESPACE):
            requested += 1
            if requested == 2:
                simulation.recreate_namespace("another-uid")
        return await get(kind, namespace, name, limit)

    monkeypatch.setattr(simulation.api, "get", get_recreated)
    with pytest.raises(Conflict):
        await simulation.reconcile()
    assert simulation.admin.database is None
    assert (simulation.minio.users, simulation.minio.objects) == ({}, {})


def restore_secrets(simulation: PlatformSimulation, secrets: dict[str, dict[str, str]]) -> None:
    """Create Secrets as a restore of a cluster backup does."""
    for name, values in secrets.items():
        simulation.put_secret(name, **values)
        simulation.api.edit(
            "Secret",
            name,
            lambda obj: obj["metadata"].update(labels=labels.for_data(NAME, labels.DATABASE_POD)),
        )


async def test_working_credentials_of_a_deleted_namespace_give_nothing() -> None:
    """Its users know them, and can enter them in the Secrets of the new namespace."""
    simulation = await ready()
    secrets = {name: simulation.secret(name) for name in (f"{NAME}-database", f"{NAME}-artifacts")}
    recreate(simulation)
    restore_secrets(simulation, secrets)
    await simulation.reconcile()
    for condition in ("DatabaseReady", "ArtifactStoreReady"):
        assert simulation.condition(condition)[:2] == ("False", Reason.ADOPTION_REQUIRED)
    assert ("Deployment", NAME) not in created(simulation)


@pytest.mark.parametrize("restored", [False, True], ids=["new Secrets", "restored Secrets"])
async def test_adopted_data_belongs_to_the_new_namespace(*, restored: bool) -> None:
    """Then the entry can be removed. Of the earlier namespace, only a restored key still works."""
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "mine"
    secrets = {name: simulation.secret(name) for name in (f"{NAME}-database", f"{NAME}-artifacts")}
    (old_key,) = (AccessKey(*user) for user in simulation.minio.users.items())
    recreate(simulation)
    if restored:
        restore_secrets(simulation, secrets)
        await simulation.reconcile()
        assert simulation.condition("ArtifactStoreReady")[1] == Reason.ADOPTION_REQUIRED
    simulation.put_platform(platform(adoptions=ADOPTIONS))
    await simulation.reconcile_until_ready()
    simulation.put_platform(platform())
    await simulation.reconcile_until_ready()
    assert simulation.policy()["ID"].endswith("in namespace another-uid")
    (marker,) = (
        text for key, text in simulation.minio.objects.items() if key.startswith("_mlflow-operator/")
    )
    assert marker.endswith("in namespace another-uid")
    assert simulation.minio.has_access(old_key) is restored
    assert simulation.admin.database
    assert "another-uid" in simulation.admin.database.marker


async def test_use_of_an_adoption_is_recorded_once() -> None:
    """Before anything is granted: an interrupted reconcile must not leave the entry to another namespace."""
    simulation = await adoptable()
    record = ("apply_status", f"{KIND}/{PLATFORM}")
    await simulation.reconcile_until_ready()
    assert simulation.api.writes.count(record) == 1
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "another-uid")]
    events = [(normal, reason) for normal, reason, _ in simulation.events.published]
    assert events.count((True, "AdoptionUsed")) == 1
    (message,) = [text for _, reason, text in simulation.events.published if reason == "AdoptionUsed"]
    # Without the entry, the artifacts would not be adopted after the database.
    assert message.endswith("Remove it when the server is Ready.")
    assert (False, Reason.ADOPTION_REQUIRED) not in events
    writes = len(simulation.api.writes)
    await simulation.reconcile()
    assert len(simulation.api.writes) == writes


async def end_after_the_adoption_is_recorded(
    simulation: PlatformSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reconcile until the process ends, before the server has got anything."""

    async def end(*_: Any) -> None:
        raise ProcessKilled

    with monkeypatch.context() as patch:
        patch.setattr(simulation.events, "publish", end)
        with pytest.raises(ProcessKilled):
            await simulation.reconcile()


async def test_interrupted_adoption_is_continued_by_the_same_namespace_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = await adoptable()
    await end_after_the_adoption_is_recorded(simulation, monkeypatch)
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "another-uid")]
    assert_not_adopted(simulation)
    stored = simulation.api.objects[KIND, PLATFORM]
    recreate(simulation, "third-uid")
    await simulation.reconcile_until_stable()
    assert_not_adopted(simulation)
    recreate(simulation, "another-uid")
    await simulation.reconcile_until_ready()
    assert simulation.api.objects[KIND, PLATFORM]["status"] == stored["status"]


async def test_adoption_does_not_count_for_a_later_namespace() -> None:
    """The administrator may have forgotten the entry. It counts again once it was removed and added."""
    simulation = await adoptable()
    await simulation.reconcile_until_ready()
    recreate(simulation, "third-uid")
    await simulation.reconcile_until_stable()
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", Reason.ADOPTION_REQUIRED)
    assert "remove it, and add it again once status.adoptions does not list it" in message
    assert simulation.policy()["ID"].endswith("in namespace another-uid")
    simulation.put_platform(platform())
    await reconcile_platform(PLATFORM, simulation.dependencies(), Checks())
    assert used_adoptions(simulation) == []
    simulation.put_platform(platform(adoptions=ADOPTIONS))
    await simulation.reconcile_until_ready()
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "third-uid")]


async def test_removed_entry_counts_no_more_although_its_use_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The administrator revokes it before the server has got anything, and the platform is not reconciled yet."""
    simulation = await adoptable()
    await end_after_the_adoption_is_recorded(simulation, monkeypatch)
    simulation.put_platform(platform())
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "another-uid")]
    await simulation.reconcile_until_stable()
    assert simulation.condition("DatabaseReady")[1] == Reason.ADOPTION_REQUIRED
    assert simulation.condition("ArtifactStoreReady")[1] == Reason.ADOPTION_REQUIRED
    assert_not_adopted(simulation)


async def test_server_that_needs_no_adoption_uses_none() -> None:
    """Neither without data nor with its own. The entry may be meant for the namespace that is created next."""
    simulation = await ready({}, platform(adoptions=ADOPTIONS))
    assert used_adoptions(simulation) == []
    simulation.delete_server()
    simulation.create_server({})
    await simulation.reconcile_until_ready()
    assert used_adoptions(simulation) == []


async def test_adoption_is_not_used_if_the_platform_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The administrator removes the entry between the read and the record."""
    simulation = await adoptable()
    apply_status = simulation.api.apply_status

    async def change_first(obj: Object) -> Object:
        if obj["kind"] == KIND:
            simulation.put_platform(platform())
        return await apply_status(obj)

    monkeypatch.setattr(simulation.api, "apply_status", change_first)
    with pytest.raises(Conflict):
        await simulation.reconcile()
    await simulation.reconcile()
    assert simulation.condition("DatabaseReady")[1] == Reason.ADOPTION_REQUIRED
    assert_not_adopted(simulation)
    assert used_adoptions(simulation) == []


@pytest.mark.parametrize("fault", ["forbidden", "old CRD"])
async def test_nothing_is_adopted_without_a_record(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry would count for each later namespace."""
    simulation = await adoptable()
    apply_status = simulation.api.apply_status

    async def drop(obj: Object) -> Object:
        if obj["kind"] == KIND and fault == "forbidden":
            raise Forbidden("apply mlflowplatforms/status: 403")
        if obj["kind"] == KIND:
            obj["status"].pop("adoptions")
        return await apply_status(obj)

    monkeypatch.setattr(simulation.api, "apply_status", drop)
    for _ in range(2):
        await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.OPERATION_REFUSED)
    assert f'status.adoptions of MLflowPlatform "{PLATFORM}"' in simulation.condition("Ready")[2]
    assert_not_adopted(simulation)
    assert [reason for _, reason, _ in simulation.events.published] == [Reason.OPERATION_REFUSED]


async def test_record_of_a_server_and_the_status_of_its_platform_do_not_overwrite_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checks of the platform take seconds, in which a server records its adoption."""
    simulation = await adoptable()
    check = simulation.admin.check

    async def record_meanwhile(*arguments: Any) -> None:
        await simulation.reconcile_until_ready()
        await check(*arguments)

    monkeypatch.setattr(simulation.admin, "check", record_meanwhile)
    checks = Checks()
    await reconcile_platform(PLATFORM, simulation.dependencies(), checks)
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "another-uid")]
    await reconcile_platform(PLATFORM, simulation.dependencies(), checks)
    assert used_adoptions(simulation) == [(ADOPTIONS[0], "another-uid")]
    assert simulation.api.objects[KIND, PLATFORM]["status"]["conditions"]


async def test_recreated_server_in_the_same_namespace_needs_no_adoption() -> None:
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "mine"
    simulation.delete_server()
    simulation.create_server({})
    await simulation.reconcile_until_ready()


async def test_objects_without_an_owner_are_not_given_to_a_server() -> None:
    simulation = PlatformSimulation()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "of whom?"
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[1] == Reason.ADOPTION_REQUIRED
    assert simulation.minio.users == {}


async def test_marker_in_the_own_prefix_proves_nothing() -> None:
    """The users of a namespace can write there."""
    simulation = PlatformSimulation(DELETE)
    marker = provisioning.marker(simulation.owner, None, f"{NAMESPACE}-1")
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/zzz-made-by-mlflow-operator"] = marker
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[1] == Reason.ADOPTION_REQUIRED


# Deletion


async def delete(simulation: PlatformSimulation) -> None:
    """Delete the server and reconcile until it is gone or nothing changes."""
    simulation.delete_server()
    for _ in range(10):
        if simulation.get(api.KIND, NAME) is None:
            return
        await simulation.reconcile()
        simulation.run_controllers()


async def test_deletion_removes_what_the_server_got() -> None:
    simulation = await ready(DELETE)
    simulation.minio.objects |= {f"{NAMESPACE}/{NAME}/model": "mine", f"{NAMESPACE}/{NAME}2/model": "other"}
    # What was created must be deleted, although the namespace is not selected any more.
    simulation.recreate_namespace(f"{NAMESPACE}-1", {})
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None
    assert simulation.admin.database is None
    assert simulation.minio.objects == {f"{NAMESPACE}/{NAME}2/model": "other"}
    assert (simulation.minio.users, simulation.minio.policies) == ({}, {})


async def test_prefix_that_another_server_can_write_to_is_not_emptied() -> None:
    """With two templates for one bucket, it can contain the artifacts of a server whose prefix begins like it.

    The owner of a prefix is recorded before its key is refused.
    """
    simulation = PlatformSimulation(DELETE)
    other = "mlflow-operator.x.other"
    simulation.minio.policies[other] = {
        "Statement": [{"Effect": "Allow", "Resource": [f"arn:aws:s3:::mlflow/{NAMESPACE}/*"]}]
    }
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[1] == Reason.NAME_CONFLICT
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "of the other server"
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None
    assert simulation.minio.objects == {f"{NAMESPACE}/{NAME}/model": "of the other server"}
    assert set(simulation.minio.policies) == {other}
    assert f'policy "{other}"' in simulation.events.published[-1][2]


@pytest.mark.parametrize("adoptions", [[], ADOPTIONS])
async def test_prefix_of_another_server_is_neither_used_nor_deleted(adoptions: list[str]) -> None:
    """After a change of the template, the prefix of a/b can be that of b/a. `spec.adoptions` does not name that one."""
    spec = s3(prefix="{name}/{namespace}")
    simulation = PlatformSimulation(DELETE, {**spec, "adoptions": adoptions})
    owner_key = f"_mlflow-operator/owners/{NAME}!{NAMESPACE}/zzz-made-by-mlflow-operator"
    objects = {
        owner_key: provisioning.marker(ServerRef(NAMESPACE, NAME, ""), None, "uid-of-b"),
        f"{NAME}/{NAMESPACE}/model": "of the other server",
    }
    simulation.minio.objects = dict(objects)
    await simulation.reconcile()
    status, reason, message = simulation.condition("ArtifactStoreReady")
    assert (status, reason) == ("False", Reason.NAME_CONFLICT)
    assert f'MLflowPlatform "{PLATFORM}"' in message
    assert simulation.minio.users == {}
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None
    assert simulation.minio.objects == objects


@pytest.mark.parametrize(
    "marker", ["", "garbage", f"mlflow-operator.dev: {NAMESPACE}/{NAME}", "mlflow-operator.dev: "]
)
async def test_marker_that_does_not_describe_the_server_permits_no_deletion(marker: str) -> None:
    simulation = await ready(DELETE)
    owner_key = f"_mlflow-operator/owners/{NAMESPACE}!{NAME}/zzz-made-by-mlflow-operator"
    simulation.minio.objects = {owner_key: marker, f"{NAMESPACE}/{NAME}/model": "mine?"}
    objects, users = dict(simulation.minio.objects), dict(simulation.minio.users)
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None
    assert (simulation.minio.objects, simulation.minio.users) == (objects, users)


async def test_retained_data_stays() -> None:
    simulation = await ready()
    await delete(simulation)
    assert simulation.admin.database
    assert simulation.minio.users


async def test_deletion_of_a_recreated_namespace_keeps_the_data_of_the_first() -> None:
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "of the first"
    objects, users, database = (
        dict(simulation.minio.objects),
        dict(simulation.minio.users),
        simulation.admin.database,
    )
    recreate(simulation)
    simulation.update_spec(**DELETE)
    await simulation.reconcile()
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None
    assert (simulation.minio.objects, simulation.minio.users) == (objects, users)
    assert simulation.admin.database == database


@pytest.mark.parametrize(
    "changed",
    [None, postgres(host="other.example.com"), without("database")],
    ids=["deleted", "moved", "gone"],
)
async def test_deletion_waits_for_the_platform(changed: Object | None) -> None:
    """Otherwise it would report that the data is deleted."""
    simulation = await ready(DELETE)
    if changed is None:
        simulation.delete_platform()
    else:
        simulation.put_platform(changed)
    await delete(simulation)
    assert ready_reason(simulation) == ("False", Reason.DELETION_BLOCKED)
    assert simulation.admin.database
    simulation.put_platform(platform())
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None


async def test_rotation_works_on_a_platform() -> None:
    simulation = await ready()
    before = simulation.secret(f"{NAME}-artifacts"), simulation.secret(f"{NAME}-database")
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    await simulation.reconcile_until_ready()
    after = simulation.secret(f"{NAME}-artifacts"), simulation.secret(f"{NAME}-database")
    assert before[0]["accessKeyID"] != after[0]["accessKeyID"]
    assert before[1]["username"] != after[1]["username"]
    assert simulation.minio.users == {after[0]["accessKeyID"]: after[0]["secretAccessKey"]}


async def test_changed_administrator_is_only_a_note_for_a_running_server() -> None:
    simulation = await ready()
    simulation.put_platform_secret("postgres-admin", username="admin", password="wrong")
    assert simulation.admin.database
    simulation.admin.database = replace(simulation.admin.database, connection_limit=1)
    await simulation.reconcile()
    assert ready_reason(simulation)[0] == "True"
    assert f"MLflowPlatform {PLATFORM}, " in simulation.condition("DatabaseReady")[2]


@pytest.mark.parametrize("key", ["nextUsername", "previousUsername"])
@pytest.mark.parametrize("name", [f"mlflow_{NAMESPACE}_other", f"mlflow_{NAMESPACE}_{NAME}", "analyst"])
async def test_secret_of_a_tenant_names_no_role_to_the_administrator(key: str, name: str) -> None:
    """Users of the namespace can write the generated Secret: the role would take the name of another server's, and
    a role for each edit would escape the limit on connections.
    """
    simulation = await ready()
    logins = dict(simulation.admin.logins)
    values = simulation.secret(f"{NAME}-database") | {key: name, "nextPassword": "chosen"}
    data = {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
    simulation.api.edit("Secret", f"{NAME}-database", lambda obj: obj.update(data=data))
    for _ in range(3):
        await simulation.reconcile()
    assert simulation.admin.logins == logins
    assert simulation.admin.database
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", Reason.SECRET_VALUE_INVALID)
    assert key in message


async def test_server_that_left_its_platform_does_not_need_it() -> None:
    """Neither to run and to be deleted, nor does it keep the platform from being deleted."""
    simulation = await ready({**DELETE, "storageChangePolicy": "Allow"})
    simulation.update_spec(**EMBEDDED)
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"]["parts"] == []
    simulation.api.edit(
        KIND,
        PLATFORM,
        lambda obj: obj["metadata"].update(
            deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[labels.PLATFORM_FINALIZER]
        ),
    )
    result = await reconcile_platform(PLATFORM, simulation.dependencies(), Checks())
    assert result.ready is None
    simulation.api.objects.pop((KIND, PLATFORM), None)
    await simulation.reconcile()
    assert ready_reason(simulation) == ("True", Reason.READY)
    await delete(simulation)
    assert simulation.get(api.KIND, NAME) is None


async def test_server_without_its_status_finds_its_stores() -> None:
    """As after the restore of a backup of the cluster, if another platform has become the default."""
    simulation = await ready()
    simulation.put_platform(platform(), is_default=False)
    simulation.put_platform(
        {**postgres(host="other.example.com"), "artifacts": s3(bucket="other")["artifacts"]}, "other"
    )
    before = dict(simulation.admin.logins)
    simulation.api.edit(api.KIND, NAME, lambda obj: obj.pop("status"))
    for _ in range(3):
        await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", Reason.STORAGE_CHANGE_REFUSED)
    assert "platformRef" in message
    assert "platform" not in simulation.status
    assert simulation.admin.logins == before
    simulation.update_spec(platformRef={"name": PLATFORM})
    await simulation.reconcile_until_ready()


async def test_server_without_its_status_and_platform_does_not_start_with_embedded_stores() -> None:
    """The platform is no longer the default. With permission, the server starts without its data."""
    simulation = await ready()
    simulation.put_platform(platform(), is_default=False)
    simulation.api.edit(api.KIND, NAME, lambda obj: obj.pop("status"))
    await simulation.reconcile()
    assert ready_reason(simulation) == ("False", Reason.STORAGE_CHANGE_REFUSED)
    assert ("StatefulSet", f"{NAME}-postgres") not in created(simulation)
    simulation.update_spec(storageChangePolicy="Allow")
    await simulation.reconcile_until_ready()
    assert ("StatefulSet", f"{NAME}-postgres") in created(simulation)
