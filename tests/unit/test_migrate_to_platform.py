"""A server with stores that an administrator's Secret gave it, which is taken over by a platform of the same stores.

Earlier versions read this Secret from another namespace. The API server has dropped the field that named it.
"""

from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from tests.unit.api.platform_refusals import platform, postgres, s3
from tests.unit.platform_simulation import PLATFORM, ROOT, PlatformMinio, PlatformSimulation
from tests.unit.simulation import NAME, NAMESPACE

HOST, ENDPOINT = "postgres.mlflow-platform.svc", "https://minio.mlflow-platform.svc:9000"
ADOPTIONS = [f"{NAMESPACE}/{NAME}"]
ON_PLATFORM: Object = {
    "platformRef": {"name": PLATFORM},
    "database": {"platform": {}},
    "artifacts": {"platform": {}},
}
MODEL = f"{NAMESPACE}/{NAME}/model"


def before(**s3_fields: Any) -> Object:
    """The spec before the migration."""
    store = {
        "endpoint": ENDPOINT,
        "bucket": "mlflow",
        "prefix": f"{NAMESPACE}/{NAME}",
        "adminSecretRef": {"name": "store-admin"},
    }
    return {
        "database": {"provision": {"host": HOST, "adminSecretRef": {"name": "database-admin"}}},
        "artifacts": {"s3": {**store, **s3_fields}},
    }


class UnmarkedMinio(PlatformMinio):
    """MinIO with the policies of servers that use no platform, too."""

    async def ensure_user(
        self, admin: Any, user: Any, policy_name: str, policy: Any, ownership: Any = None
    ) -> None:
        """Behave like the client."""
        if ownership:
            await super().ensure_user(admin, user, policy_name, policy, ownership)
            return
        self.users[user.id] = user.secret
        self.policy_of_user[user.id] = policy_name
        self.policies[policy_name] = {"ID": f"made for {user.id}", **policy}


@pytest.fixture
async def running() -> PlatformSimulation:
    """A server of the earlier version with data, whose administrators' Secrets are in no namespace that it may use."""
    return await running_before(before())


async def running_before(spec: Object) -> PlatformSimulation:
    """Return a Ready server that has used administrators' Secrets, which are gone now."""
    simulation = PlatformSimulation(spec, is_default=False)
    simulation.store = simulation.store_admin = simulation.minio = UnmarkedMinio()
    simulation.put_secret("database-admin", username="admin", password=simulation.admin.password)
    simulation.put_secret("store-admin", accessKeyID=ROOT.id, secretAccessKey=ROOT.secret)
    await simulation.reconcile_until_ready()
    prefix = spec["artifacts"]["s3"]["prefix"]
    simulation.minio.objects[f"{prefix}/model"] = "data"
    for name in ("database-admin", "store-admin"):
        del simulation.api.objects["Secret", name]
    return simulation


async def test_server_keeps_running_after_the_upgrade_of_the_operator(running: PlatformSimulation) -> None:
    """Its own login and key work. The condition of the store, which is configured each time, says what to do."""
    deployment = running.get("Deployment", NAME)
    await running.reconcile_until_ready()
    assert running.get("Deployment", NAME) == deployment
    message = running.condition("ArtifactStoreReady")[2]
    assert f'no Secret "store-admin" in namespace {NAMESPACE}' in message
    assert "MLflowPlatform" in message


async def test_platform_takes_over_database_and_artifacts(running: PlatformSimulation) -> None:
    """Without storageChangePolicy, because the locations stay the same. Users keep their login and key."""
    secrets = {name: running.secret(name) for name in (f"{NAME}-database", f"{NAME}-artifacts")}
    location = {key: running.status["database"][key] for key in ("host", "port", "name")}
    uri = running.status["artifacts"]["uri"]
    running.put_platform(platform(adoptions=ADOPTIONS), is_default=False)
    running.update_spec(**ON_PLATFORM)
    await running.reconcile_until_ready()
    assert running.status["database"] == {"type": "Platform", **location}
    assert running.status["artifacts"] == {"type": "Platform", "uri": uri, "endpoint": ENDPOINT}
    assert running.minio.objects[MODEL] == "data"
    assert running.admin.database
    assert running.admin.database.marker.endswith(f"in namespace {NAMESPACE}-1")
    assert running.policy()["ID"].endswith(f"in namespace {NAMESPACE}-1")
    for name, values in secrets.items():
        # The platform requires a verified certificate, which is part of the URI.
        values.pop("uri", None)
        assert {key: running.secret(name)[key] for key in values} == values
    assert "StorageChanged" not in [event[1] for event in running.events.published]


async def test_adopted_server_needs_no_entry_any_more(running: PlatformSimulation) -> None:
    """It is deleted completely with deletionPolicy Delete, as one that was created on the platform."""
    running.put_platform(platform(adoptions=ADOPTIONS), is_default=False)
    running.update_spec(**ON_PLATFORM)
    await running.reconcile_until_ready()
    running.put_platform(platform(), is_default=False)
    running.update_spec(deletionPolicy="Delete")
    await running.reconcile_until_ready()
    running.delete_server()
    for _ in range(10):
        if running.get(api.KIND, NAME) is None:
            break
        await running.reconcile()
        running.run_controllers()
    assert running.get(api.KIND, NAME) is None
    assert running.admin.database is None
    assert (running.minio.objects, running.minio.users, running.minio.policies) == ({}, {}, {})


async def test_nothing_is_taken_over_without_the_entry(running: PlatformSimulation) -> None:
    """The server keeps its login and key until an administrator adds the entry."""
    assert running.admin.database
    marker = running.admin.database.marker
    running.update_spec(**ON_PLATFORM)
    await running.reconcile()
    for condition in ("DatabaseReady", "ArtifactStoreReady"):
        status, reason, message = running.condition(condition)
        assert (status, reason) == ("False", Reason.ADOPTION_REQUIRED)
        assert f'"{NAMESPACE}/{NAME}"' in message
    assert running.admin.database.marker == marker
    assert running.policy()["ID"].startswith("made for ")
    assert running.minio.objects[MODEL] == "data"
    assert running.condition("ServerAvailable")[0] == "True"
    running.put_platform(platform(adoptions=ADOPTIONS), is_default=False)
    await running.reconcile_until_ready()


@pytest.mark.parametrize(
    ("platform_spec", "location"),
    [
        (postgres(host="other.example.com"), "other.example.com:5432"),
        (s3(bucket="other"), f"s3://other/{NAMESPACE}/{NAME}"),
        (s3(endpoint="https://other.example.com"), "https://other.example.com"),
        (s3(prefix="a/{namespace}/{name}"), f"s3://mlflow/a/{NAMESPACE}/{NAME}"),
    ],
    ids=["host", "bucket", "endpoint", "prefix"],
)
async def test_platform_with_other_stores_takes_over_nothing(
    running: PlatformSimulation, platform_spec: Object, location: str
) -> None:
    """The choice is not recorded, so that the user can correct either of them."""
    deployment = running.get("Deployment", NAME)
    running.put_platform({**platform_spec, "adoptions": ADOPTIONS}, is_default=False)
    running.update_spec(**ON_PLATFORM)
    await running.reconcile()
    status, reason, message = running.condition("Ready")
    assert (status, reason) == ("False", Reason.STORAGE_CHANGE_REFUSED)
    assert location in message
    assert "platform" not in running.status
    assert running.get("Deployment", NAME) == deployment
    running.update_spec(platformRef=None, **before())
    await running.reconcile_until_ready()
    assert running.get("Deployment", NAME) == deployment


async def test_artifacts_can_be_copied_to_the_prefix_of_the_platform() -> None:
    """If the server had another prefix. The key of the platform covers only the new one."""
    simulation = await running_before(before(prefix=NAMESPACE))
    simulation.put_platform(platform(adoptions=ADOPTIONS), is_default=False)
    simulation.update_spec(**ON_PLATFORM)
    await simulation.reconcile()
    assert simulation.condition("Ready")[1] == Reason.STORAGE_CHANGE_REFUSED
    simulation.minio.objects[MODEL] = simulation.minio.objects[f"{NAMESPACE}/model"]
    simulation.update_spec(storageChangePolicy="Allow")
    await simulation.reconcile_until_ready()
    assert simulation.status["artifacts"]["uri"] == f"s3://mlflow/{NAMESPACE}/{NAME}"
    assert simulation.covered() == {"arn:aws:s3:::mlflow", f"arn:aws:s3:::mlflow/{NAMESPACE}/{NAME}/*"}
    assert simulation.minio.objects[MODEL] == simulation.minio.objects[f"{NAMESPACE}/model"] == "data"
