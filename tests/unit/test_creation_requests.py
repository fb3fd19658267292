"""How many requests the creation of one server needs: a platform team creates fifty servers at once."""

from collections import Counter

import pytest

from mlflow_operator import api
from mlflow_operator.kube.objects import Object
from tests.unit.platform_simulation import PlatformSimulation
from tests.unit.simulation import EXTERNAL, NAME, URI, SimulatedCluster

SERVER = f"{api.KIND}/{NAME}"
COMMON = [f"Secret/{NAME}-encryption", f"Secret/{NAME}-server", "Job", f"ConfigMap/{NAME}-client"]
PODS = [f"Service/{NAME}", f"ConfigMap/{NAME}-server", f"Deployment/{NAME}"]
PROVISIONED = [f"Secret/{NAME}-database", f"Secret/{NAME}-artifacts"]
EMBEDDED = [
    f"{kind}/{NAME}-{store}{suffix}"
    for store in ("postgres", "artifacts")
    for kind, suffix in (("PersistentVolumeClaim", "-data"), ("Service", ""), ("StatefulSet", ""))
]


def embedded(spec: Object | None = None) -> SimulatedCluster:
    """A new server with embedded stores."""
    return SimulatedCluster(spec)


def external(spec: Object | None = None) -> SimulatedCluster:
    """A new server with an external database and an external bucket."""
    simulation = SimulatedCluster({**EXTERNAL, **(spec or {})})
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    return simulation


def on_platform(spec: Object | None = None) -> SimulatedCluster:
    """A new server on a platform."""
    return PlatformSimulation(spec)


def writes(simulation: SimulatedCluster) -> Counter[str]:
    """The objects that the operator wrote, with the number of writes. The names of Jobs contain a hash."""
    names = ("Job" if name.startswith("Job/") else name for _, name in simulation.api.writes)
    return Counter(names)


@pytest.mark.parametrize(
    ("create", "objects", "status_writes"),
    [
        (embedded, [*PROVISIONED, *EMBEDDED], 4),
        (external, [], 3),
        # The choice of the platform is recorded before anything is created.
        (on_platform, PROVISIONED, 4),
    ],
)
async def test_creation_writes_each_object_once(
    create: type[SimulatedCluster], objects: list[str], status_writes: int
) -> None:
    """The status is written once for each of its states: started, migrating, rolling out, ready."""
    simulation = create()
    await simulation.reconcile()
    await simulation.reconcile_until_ready()
    expected = Counter([*COMMON, *PODS, *objects])
    assert writes(simulation) == expected | Counter({SERVER: status_writes})


async def test_server_on_a_platform_is_provisioned_with_nine_writes() -> None:
    """By one reconcile: four Secrets, the migration, what clients use, the choice, and the status."""
    simulation = on_platform()
    await simulation.reconcile()
    assert simulation.condition("DatabaseReady")[0] == simulation.condition("ArtifactStoreReady")[0] == "True"
    expected = Counter([*COMMON, *PROVISIONED, f"Service/{NAME}", SERVER, SERVER])
    assert writes(simulation) == expected
    await simulation.reconcile()
    assert writes(simulation) == expected, "the migration has not ended"


async def test_finalizer_is_one_more_write() -> None:
    """It is set before anything is created."""
    simulation = on_platform({"deletionPolicy": "Delete"})
    await simulation.reconcile()
    assert writes(simulation).total() == 10
    assert simulation.api.writes[0] == ("patch", SERVER)
