"""How many requests the creation of one server needs: a platform team creates fifty servers at once."""

import asyncio
import contextlib
from collections import Counter

import pytest

from mlflow_operator import api
from mlflow_operator.framework.shared_reads import MAX_AGE_SECONDS
from mlflow_operator.kube.client import Conflict
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets
from mlflow_operator.reconciler import reconcile
from tests.unit.platform_simulation import CA, PLATFORM, PlatformSimulation
from tests.unit.simulation import EXTERNAL, NAME, NAMESPACE, URI, ProcessKilled, SimulatedCluster
from tests.unit.virtual_time import in_virtual_time

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


def on_platform(spec: Object | None = None) -> PlatformSimulation:
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


async def test_absent_objects_are_not_requested_again_before_they_are_created() -> None:
    """A missing Secret is known from the observed state, and a creation fails if there is one by now. So does that of
    objects without data. The choice of the platform needs no request for volumes and Secrets of an earlier server.
    """
    simulation = on_platform()
    await simulation.reconcile()
    reads = Counter(simulation.api.reads)
    secrets = {name: count for name, count in reads.items() if name.startswith(f"Secret/{NAME}-")}
    assert secrets == dict.fromkeys(secrets, 1)
    kinds_read = {name.partition("/")[0] for name in reads}
    assert kinds_read == {api.KIND, "Namespace", "Secret"}
    assert simulation.api.lists.count("PersistentVolumeClaim") == 1


@pytest.mark.parametrize(
    "name",
    ["missing", PLATFORM],
    ids=["no such platform", "not selected"],
)
async def test_server_that_waits_for_its_platform_needs_three_requests(name: str) -> None:
    """Every 15 seconds. Its objects do not matter yet."""
    simulation = PlatformSimulation({"platformRef": {"name": name}})
    simulation.recreate_namespace("uid", {})
    await simulation.reconcile()
    assert simulation.api.lists == ["MLflowPlatform"]
    assert simulation.api.reads == [SERVER, f"Namespace/{NAMESPACE}"]


async def test_namespace_is_requested_for_the_choice_and_before_all_grants() -> None:
    """After the generated Secrets were written. Database and artifact store share this request."""
    simulation = on_platform()
    await simulation.reconcile()
    reads = simulation.api.reads
    assert reads.count(f"Namespace/{NAMESPACE}") == 2
    simulation.minio.users.clear()
    simulation.admin.database = None
    reads.clear()
    await simulation.reconcile()
    assert reads.count(f"Namespace/{NAMESPACE}") == 2, "each reconcile checks it again"


async def test_secret_for_clients_is_requested_once_there_are_pods() -> None:
    """Until the server is Ready: it may contain keys for clients that an earlier spec allowed."""
    simulation = on_platform()
    requested = []
    for _ in range(4):
        await simulation.reconcile()
        requested.append(simulation.api.reads.count(f"Secret/{NAME}-client"))
        simulation.run_controllers()
    assert requested == [0, 1, 2, 2]
    assert simulation.condition("Ready")[0] == "True"


@in_virtual_time
async def test_servers_that_are_created_at_once_share_the_secrets_of_their_platform() -> None:
    """Within a second. Then a changed credential or CA is known."""
    simulation = on_platform()
    names = [NAME, "b", "c"]
    for name in names[1:]:
        simulation.create_server({}, name)
    deps = simulation.process()

    async def requests() -> list[int]:
        simulation.api.reads.clear()
        await asyncio.gather(*(reconcile((NAMESPACE, name), deps) for name in names))
        return [
            simulation.api.reads.count(f"Secret/{name}") for name in ("ca", "postgres-admin", "minio-admin")
        ]

    assert await requests() == [1, 1, 1]
    simulation.put_platform_secret("ca", **{"ca.crt": "NEW"})
    await asyncio.sleep(MAX_AGE_SECONDS)
    assert (await requests())[0] == 1
    assert simulation.secret(f"{NAME}-server")[secrets.DATABASE_CA_KEY] == "NEW"


@in_virtual_time
async def test_missing_secret_of_a_platform_is_requested_for_each_server() -> None:
    """It may be created together with the servers, and they would wait for the next retry."""
    simulation = on_platform()
    deps = simulation.process()
    del simulation.api.objects["Secret", "ca"]
    await simulation.reconcile(deps)
    assert simulation.condition("CredentialsReady")[1] == "SecretNotFound"
    simulation.put_platform_secret("ca", **{"ca.crt": CA})
    await simulation.reconcile(deps)
    assert simulation.condition("CredentialsReady")[0] == "True"


@in_virtual_time
async def test_secrets_in_the_namespace_of_a_server_are_not_shared() -> None:
    """Neither its own nor those of the user, who waits for the effect of a change."""
    simulation = external()
    deps = simulation.process()
    await simulation.reconcile(deps)
    first = Counter(name for name in simulation.api.reads if name.startswith("Secret/"))
    assert {"Secret/db", "Secret/keys", f"Secret/{NAME}-server"} <= first.keys()
    simulation.api.reads.clear()
    await simulation.reconcile(deps)
    assert Counter(name for name in simulation.api.reads if name.startswith("Secret/")) == first


async def test_requests_at_rest() -> None:
    """On a platform: the namespace, which it may select no longer, and its Secrets. Lists are not counted."""
    simulation = on_platform()
    await simulation.reconcile_until_ready()
    simulation.api.reads.clear()
    await simulation.reconcile()
    assert Counter(simulation.api.reads) == Counter(
        [
            SERVER,
            f"Namespace/{NAMESPACE}",
            "Secret/ca",
            "Secret/minio-admin",
            *(f"Secret/{NAME}-{purpose}" for purpose in ("artifacts", "database", "encryption", "server")),
        ]
    )


async def test_secret_that_was_created_meanwhile_is_not_replaced() -> None:
    """The reconcile is repeated, and uses or refuses the stored values."""
    simulation = on_platform()
    other = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{NAME}-database", "namespace": NAMESPACE},
    }
    create = simulation.api.create

    async def create_after_another(obj: Object) -> Object:
        if obj["metadata"]["name"] == f"{NAME}-database":
            simulation.api.put(other)
        return await create(obj)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation.api, "create", create_after_another)
        with pytest.raises(Conflict):
            await simulation.reconcile()
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[:2] == ("False", "NameConflict")


@pytest.mark.parametrize("write_count", range(1, 13))
async def test_interrupted_creation_generates_nothing_twice(write_count: int) -> None:
    """And no passphrase of a server without stored secrets needs a second write."""
    simulation = on_platform()
    simulation.api.crash_after_writes = write_count
    with contextlib.suppress(ProcessKilled, BaseExceptionGroup):
        for _ in range(4):
            await simulation.reconcile()
            simulation.run_controllers()
    simulation.api.crash_after_writes = None
    await simulation.reconcile_until_ready()
    generated = [*PROVISIONED, f"Secret/{NAME}-encryption"]
    assert {name: count for name, count in writes(simulation).items() if name in generated} == dict.fromkeys(
        generated, 1
    )
