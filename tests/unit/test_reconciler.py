"""The life of a server, in the moments that a real cluster can't be stopped at."""

import asyncio
from functools import partial

import pytest

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.database import reconcile as database
from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.unit.simulation import DOWN, EXTERNAL, URI, CutOff, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty spec, nothing made yet."""
    return World(monkeypatch)


@pytest.fixture
async def running(world: World) -> World:
    """A server that is Ready and at rest."""
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    return world


@pytest.fixture
async def external(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server on a database and a bucket of somebody else's, Ready and at rest."""
    return await World.on_external_stores(monkeypatch)


def inputs(world: World) -> str:
    """The annotation that rolls the pods."""
    deployment = world.get("Deployment", "a")
    assert deployment
    return str(deployment["spec"]["template"]["metadata"]["annotations"][labels.INPUTS])


async def test_no_server_starts_before_its_schema(world: World) -> None:
    """Servers that migrate at once kill each other; so none is made before the Job is done."""
    for _ in range(4):
        await world.reconcile()
        world.settle(jobs=False)
    assert world.get("Deployment", "a") is None
    assert world.condition("SchemaReady")[1] == "Progressing"
    await world.until_settled()
    assert world.condition("Ready")[:2] == ("True", "Ready")


async def test_at_rest_nothing_is_written(running: World) -> None:
    """Ten servers for five minutes must cost the API server no write."""
    running.now = "2026-01-01T00:10:00Z"
    before = list(running.api.writes)
    for _ in range(3):
        await running.reconcile()
    assert running.api.writes == before


async def test_a_database_that_never_answers_delays_no_repair(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time-out is fifteen seconds, and a Service that somebody deleted is missed at once."""
    answer = asyncio.Event()

    async def silent(*_: object) -> DatabaseState:
        await answer.wait()
        raise DOWN

    monkeypatch.setattr(database, "inspect", silent)
    del running.api.objects["Service", "a"]
    running.api.edit("Deployment", "a", lambda live: live["spec"].update(replicas=7))
    looking = asyncio.create_task(running.reconcile())
    async with asyncio.timeout(5):
        while running.get("Service", "a") is None or replicas(running)["Deployment/a"] != 1:
            await asyncio.sleep(0)
    assert not looking.done()
    answer.set()
    await looking
    assert running.condition("DatabaseReady")[1] == "DatabaseUnreachable"


async def test_killed_after_any_write_it_ends_well_with_one_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each N: the process dies after its Nth write, a fresh one goes on from what it finds."""
    whole = World(monkeypatch)
    await whole.until_settled()
    count = len(whole.api.writes)
    assert count > 15
    for n in range(1, count):
        world = World(monkeypatch)
        world.api.dies_after = n
        with pytest.raises((CutOff, BaseExceptionGroup)):  # a group, where two steps run at once
            await world.until_settled()
        world.api.dies_after = None
        passwords = {name: obj["data"] for (kind, name), obj in world.api.objects.items() if kind == "Secret"}
        await world.until_settled()
        assert world.condition("Ready")[0] == "True", f"cut off after write {n}"
        for name, data in passwords.items():
            live = world.get("Secret", name)
            assert live
            assert live["data"] == data, f"Secret {name} changed after write {n}"
        assert sum(kind == "Job" for kind, _ in world.api.objects) == 1


async def test_a_lost_password_is_never_made_up_anew(running: World) -> None:
    """The volume still goes by the old one: a new one would lock everybody out."""
    del running.api.objects["Secret", "a-database"]
    await running.reconcile()
    assert running.get("Secret", "a-database") is None
    status, reason, message = running.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretNotFound")
    assert 'Secret "a-database" is gone' in message
    assert running.get("Deployment", "a")


async def test_a_lost_key_is_never_made_up_anew(running: World) -> None:
    """The same, where somebody edited the Secret."""
    running.api.edit("Secret", "a-database", lambda live: live["data"].pop("password"))
    await running.reconcile()
    assert running.condition("CredentialsReady")[1] == "SecretKeyMissing"
    assert "password" not in running.secret("a-database")


async def test_a_server_made_again_takes_its_data_and_password_back(running: World) -> None:
    """Retain is the default: deleting the resource by mistake loses nothing."""
    before = running.secret("a-database")
    running.delete()
    assert running.get("Deployment", "a") is None
    assert running.get("PersistentVolumeClaim", "a-postgres-data")
    running.make()
    await running.until_settled()
    assert running.condition("Ready")[0] == "True"
    assert running.secret("a-database") == before
    assert running.asked[-1].password == before["password"]


async def test_a_server_made_again_goes_on_at_its_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status went with it; an operator that is tested with a newer version must not migrate its data unasked."""
    world = World(monkeypatch)
    world.revision = SCHEMA_HEADS["3.14.0"]
    await world.until_settled()
    live = world.get("Deployment", "a")
    assert live
    assert live["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":v3.14.0-full")
    assert not any(kind == "Job" for kind, _ in world.api.objects)


async def test_a_database_that_goes_away_shows_and_touches_no_pod(running: World) -> None:
    """Peers stay "Available"; and nothing may be scaled down or rolled for it."""
    pods = running.get("Deployment", "a")
    running.database_fault = DOWN
    await running.reconcile()
    assert running.condition("DatabaseReady")[:2] == ("False", "DatabaseUnreachable")
    assert running.condition("Ready")[2] == "The database is away."
    assert running.get("Deployment", "a") == pods
    running.database_fault = None
    await running.reconcile()
    assert running.condition("Ready")[0] == "True"


async def test_drift_is_repaired_while_the_database_is_away(running: World) -> None:
    """A step that waits does not stop independent ones."""
    running.database_fault = DOWN
    running.api.edit("Deployment", "a", lambda live: live["spec"].update(replicas=5))
    await running.reconcile()
    live = running.get("Deployment", "a")
    assert live
    assert live["spec"]["replicas"] == 1


async def test_another_image_waits_for_its_schema(running: World) -> None:
    """The old server keeps serving until the migration for the new image is done."""
    running.change(image="own/mlflow:9")
    for _ in range(3):
        await running.reconcile()
        running.settle(jobs=False)
    live = running.get("Deployment", "a")
    assert live
    assert live["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f"v{DEFAULT_VERSION}-full")
    await running.until_settled()
    live = running.get("Deployment", "a")
    assert live
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "own/mlflow:9"


async def test_a_known_schema_costs_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that already stands at the head is served at once."""
    world = World(monkeypatch)
    world.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert not any(kind == "Job" for kind, _ in world.api.objects)


async def test_a_job_that_never_began_makes_way(world: World) -> None:
    """Its image can't be pulled; whoever names another one must not wait for it for ever."""
    world.change(image="typo:1")
    for _ in range(3):
        await world.reconcile()
        world.settle(jobs=False)
    world.change(image="right:1")
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_a_typo_that_was_put_back_leaves_no_job(running: World) -> None:
    """Its pod would ask for an image that does not exist, for ever."""
    running.change(image="typo:1")
    await running.reconcile()
    assert sum(kind == "Job" for kind, _ in running.api.objects) == 2
    running.change(image=None)
    for _ in range(3):
        await running.reconcile()
    assert running.condition("Ready")[0] == "True"
    assert sum(kind == "Job" for kind, _ in running.api.objects) == 1


async def test_never_two_migrations_at_once(world: World) -> None:
    """One that runs is waited for, whatever the spec asks for meanwhile."""
    for _ in range(3):
        await world.reconcile()
        world.settle(jobs=False)
    job = next(obj for (kind, _), obj in world.api.objects.items() if kind == "Job")
    world.end_job(job, "Suspended")  # a pod that has begun, a Job that has not ended
    world.change(image="other:1")
    await world.reconcile()
    assert sum(kind == "Job" for kind, _ in world.api.objects) == 1
    assert job["metadata"]["name"] in world.condition("SchemaReady")[2]


async def test_a_foreign_object_is_left_alone(world: World) -> None:
    """Server `a` and somebody's Service `a-postgres`: never taken over, and said."""
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a-postgres", "namespace": "team"},
        "spec": {},
    }
    stored = world.api.put(foreign)
    await world.reconcile()
    assert world.get("Service", "a-postgres") == stored
    status, reason, message = world.condition("DatabaseReady")
    assert (status, reason) == ("False", "NameConflict")
    assert 'Service "a-postgres"' in message


async def test_a_changed_secret_rolls_the_pods(external: World) -> None:
    """Whatever the pods read: a new value, a new annotation."""
    before = inputs(external)
    external.put_secret("keys", accessKeyID="k", secretAccessKey="another")
    await external.reconcile()
    assert inputs(external) != before


async def test_what_the_pods_do_not_read_does_not_roll_them(external: World) -> None:
    """Such as the notes of a rotation beside the key that it replaced: the pods roll once for it."""
    before = inputs(external)
    external.put_secret("keys", accessKeyID="k", secretAccessKey="s", note="of somebody")
    await external.reconcile()
    assert inputs(external) == before


async def test_a_secret_that_points_elsewhere_is_refused(external: World) -> None:
    """The CRD can't see inside Secrets: everything logged so far would stay behind unnoticed."""
    before = external.secret("a-server"), inputs(external)
    external.put_secret("db", uri=URI.format(host="two"))
    await external.reconcile()
    status, reason, message = external.condition("CredentialsReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert "from one:5432/mlflow to two:5432/mlflow" in message
    assert "hunter2" not in message
    assert (external.secret("a-server"), inputs(external)) == before
    external.change(storageChangePolicy="Allow")
    await external.until_settled()
    assert "two" in external.secret("a-server")["backend-store-uri"]
    assert external.condition("Ready")[0] == "True"


async def test_a_short_name_is_a_service_beside_the_server(external: World) -> None:
    """As the pods understand it. What they are given stays as the owner wrote it: addresses change."""
    before = external.secret("a-server")
    external.services |= {"one": "10.96.0.7", "s3": "10.96.0.8"}
    await external.reconcile()
    assert external.asked[-1].host == "one"
    assert ("hostaddr", "10.96.0.7") in external.asked[-1].options
    assert external.store.asked[-1].endpoint == "http://s3.in-full:9000"
    assert external.secret("a-server") == before


async def test_moving_to_another_store_leaves_the_data_and_nothing_that_runs(running: World) -> None:
    """The embedded database and its Service go once the new one serves; volume and password stay."""
    running.put_secret("db", uri=URI.format(host="two"))
    running.change(storageChangePolicy="Allow", database=EXTERNAL["database"])
    await running.until_settled()
    assert running.condition("Ready")[0] == "True"
    assert running.get("StatefulSet", "a-postgres") is None
    assert running.get("Service", "a-postgres") is None
    assert running.get("PersistentVolumeClaim", "a-postgres-data")
    assert running.secret("a-database")["password"]
    assert running.get("StatefulSet", "a-artifacts")
    assert running.get("Service", "a")


async def test_pods_are_made_once_the_node_port_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of the hosts that may ask: pods made without it would roll as soon as they are up."""
    world = World(monkeypatch, {**EXTERNAL, "service": {"type": "NodePort"}})
    world.put_secret("db", uri=URI.format(host="one"))
    world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    world.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await world.reconcile()
    assert world.get("Service", "a")
    assert world.get("Deployment", "a") is None
    world.api.edit("Service", "a", lambda live: live["spec"]["ports"][0].update(nodePort=30500))
    await world.until_settled()
    live = world.get("Deployment", "a")
    assert live
    assert ":30500*" in str(live["spec"]["template"]["spec"]["containers"][0]["env"])
    assert [w for w in world.api.writes if w[1] == "Deployment/a"] == [("apply", "Deployment/a")]


async def test_fewer_replicas_need_no_budget(running: World) -> None:
    """A budget for a single pod would block drains."""
    running.change(replicas=2)
    await running.until_settled()
    assert running.get("PodDisruptionBudget", "a")
    running.change(replicas=1)
    await running.until_settled()
    assert running.get("PodDisruptionBudget", "a") is None


async def test_a_missing_secret_is_named_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Secret, which field; and Ready as soon as it is there, without touching the resource."""
    world = World(monkeypatch, EXTERNAL)
    world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    await world.reconcile()
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "SecretNotFound")
    assert '"db"' in message
    assert "spec.database.external.uriSecretRef" in message
    world.put_secret("db", uri=URI.format(host="one"))
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"


async def test_suspending_stops_the_server_before_its_stores(running: World) -> None:
    """Requests under way end well; and everything comes back with its data."""
    running.change(suspend=True)
    await running.reconcile()
    assert replicas(running) == {"Deployment/a": 0, "StatefulSet/a-postgres": 1, "StatefulSet/a-artifacts": 1}
    running.settle()
    await running.until_settled()
    assert set(replicas(running).values()) == {0}
    assert running.condition("Ready")[:2] == ("False", "Suspended")
    running.change(suspend=False)
    await running.until_settled()
    assert set(replicas(running).values()) == {1}
    assert running.condition("Ready")[0] == "True"


async def test_a_resource_written_past_the_crd_changes_nothing(running: World) -> None:
    """A condition that names the field; the server goes on as it was."""
    before = running.get("Deployment", "a")
    running.change(workers="many")
    await running.reconcile()
    status, reason, message = running.condition("Ready")
    assert (status, reason) == ("False", "InvalidResource")
    assert "workers" in message
    assert running.get("Deployment", "a") == before


async def test_an_event_goes_out_once_per_change(running: World) -> None:
    """Not at every resync."""
    running.database_fault = DOWN
    running.events.published.clear()
    for _ in range(3):
        await running.reconcile()
    assert running.events.published == [(False, "DatabaseUnreachable", "The database is away.")]


def replicas(world: World) -> dict[str, int]:
    """What is scaled to what."""
    return {
        f"{kind}/{name}": obj["spec"]["replicas"]
        for (kind, name), obj in world.api.objects.items()
        if kind in ("Deployment", "StatefulSet")
    }


async def test_a_lost_volume_is_told_and_never_replaced_by_an_empty_one(running: World) -> None:
    """An empty database that says Ready would hide that everything is gone."""
    for claim, condition, secret in (
        ("a-postgres-data", "DatabaseReady", "a-database"),
        ("a-artifacts-data", "ArtifactStoreReady", "a-artifacts"),
    ):
        del running.api.objects["PersistentVolumeClaim", claim]
        await running.reconcile()
        assert running.get("PersistentVolumeClaim", claim) is None
        status, reason, message = running.condition(condition)
        assert (status, reason) == ("False", "VolumeLost")
        assert f'"{claim}" is gone' in message
        del running.api.objects["Secret", secret]  # the owner says: start empty
        running.revision = None
        await running.until_settled()
        assert running.get("PersistentVolumeClaim", claim)
        assert running.condition("Ready")[0] == "True"


async def test_a_volume_that_is_being_deleted_is_no_progress(running: World) -> None:
    """It lives as long as its pod: the last moment to copy the data away."""
    running.api.edit(
        "PersistentVolumeClaim",
        "a-postgres-data",
        lambda live: live["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    )
    await running.reconcile()
    assert running.condition("DatabaseReady")[:2] == ("False", "VolumeLost")
    assert replicas(running)["Deployment/a"] == 1


async def test_a_volume_that_may_not_grow_stops_nothing(running: World) -> None:
    """The database runs as before, and a size once asked for can't be taken back: Ready must not hang on it."""
    size = {"embedded": {"storage": {"size": "50Gi"}}}
    running.api.edit(
        "PersistentVolumeClaim", "a-postgres-data", lambda live: live.update(status={"phase": "Bound"})
    )
    running.api.refuses["PersistentVolumeClaim"] = Forbidden(
        "apply PersistentVolumeClaim: 403: only dynamic ones"
    )
    running.change(database=size)
    await running.reconcile()
    assert running.condition("Ready")[0] == "True"
    assert (
        "can't grow: apply PersistentVolumeClaim: 403: only dynamic ones."
        in running.condition("DatabaseReady")[2]
    )


async def test_what_an_admission_policy_refuses_is_in_the_status(world: World) -> None:
    """Its sentence is what the owner needs; a traceback in our log is what nobody reads."""
    world.api.refuses["StatefulSet"] = Forbidden(
        'apply StatefulSet team/a: 403 Forbidden: webhook "x" denied it'
    )
    await world.reconcile()
    status, reason, message = world.condition("DatabaseReady")
    assert (status, reason) == ("False", "OperationRefused")
    assert 'webhook "x" denied it' in message


async def test_a_server_can_be_stopped_whatever_it_lacks(external: World) -> None:
    """Who stops a server must not have to mend it first."""
    del external.api.objects["Secret", "db"]
    external.change(
        suspend=True, env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no"}}}]
    )
    before = inputs(external)
    await external.reconcile()
    assert replicas(external) == {"Deployment/a": 0}
    assert inputs(external) == before
    assert external.condition("ServerAvailable")[1] == "Suspended"


async def test_an_evicted_pod_keeps_no_store_running(running: World) -> None:
    """It stays listed though nothing runs in it any more."""
    meta = {"name": "evicted", "namespace": "team", "labels": labels.owned("a", labels.SERVER_POD)}
    running.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {"phase": "Failed"}})
    running.change(suspend=True)
    await running.until_settled()
    assert set(replicas(running).values()) == {0}


async def test_a_server_that_slept_wakes_to_a_schema_that_was_looked_at(external: World) -> None:
    """Meanwhile the database may have been restored or emptied: several pods at once would ruin each other."""
    external.change(suspend=True)
    await external.until_settled()
    external.revision = None
    external.change(suspend=False)
    await external.reconcile()
    assert replicas(external) == {"Deployment/a": 0}
    await external.until_settled()
    assert replicas(external) == {"Deployment/a": 1}
    assert external.revision == SCHEMA_HEADS[DEFAULT_VERSION]


async def test_another_database_gets_its_schema_before_any_pod_sees_it(external: World) -> None:
    """The pods of before go on while the migration Job works on the new, empty one."""
    before = inputs(external)
    external.put_secret("db", uri=URI.format(host="two"))
    external.change(storageChangePolicy="Allow")
    external.revision = None
    for _ in range(3):
        await external.reconcile()
        external.settle(jobs=False)
    assert inputs(external) == before
    await external.until_settled()
    assert inputs(external) != before
    assert external.condition("Ready")[0] == "True"


async def test_no_replica_is_not_ready(running: World) -> None:
    """Scaled to nothing: nobody answers, and Ready must not say otherwise."""
    running.change(replicas=0)
    await running.until_settled()
    assert running.condition("Ready")[:2] == ("False", "Suspended")
    assert "spec.replicas is 0" in running.condition("Ready")[2]


async def test_a_quota_that_forbids_pods_says_the_same_each_time(running: World) -> None:
    """The API server names another pod with each try: as news, that would be an Event a minute."""
    said = set()
    for pod in ("a-5d-x7x", "a-5d-k2k"):
        message = f'pods "{pod}" is forbidden: exceeded quota: q, limited: pods=1'
        failure = {"type": "ReplicaFailure", "status": "True", "message": message}
        status = {"conditions": [failure], "replicas": 0}
        running.api.edit("Deployment", "a", partial(dict.update, status=status))
        await running.reconcile()
        said.add(running.condition("ServerAvailable"))
    assert len(said) == 1
    assert said.pop()[1] == "QuotaExceeded"


async def test_a_binary_secret_is_read_and_rolls_the_pods(external: World) -> None:
    """A Java keystore, say: no text, but as good a value as any."""
    item = {"key": "trust.jks", "path": "trust.jks"}
    volume = {"name": "own", "secret": {"secretName": "store", "items": [item]}}
    seen = set()
    external.change(podTemplate={"spec": {"volumes": [volume]}})
    for data in ("/////w==", "/////g=="):
        meta = {"name": "store", "namespace": "team"}
        external.api.put(
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"trust.jks": data}}
        )
        await external.until_settled()
        assert external.condition("Ready")[0] == "True"
        seen.add(inputs(external))
    assert len(seen) == 2


async def test_a_password_that_is_no_text_is_told(external: World) -> None:
    """It can't go into a URI, and must not end in a traceback."""
    external.api.edit("Secret", "db", lambda live: live["data"].update(uri="/////w=="))
    await external.reconcile()
    assert external.condition("CredentialsReady")[1] == "SecretValueInvalid"
    assert "holds no text" in external.condition("CredentialsReady")[2]


async def test_a_database_put_back_to_an_older_backup_is_migrated_again(world: World) -> None:
    """The Job that did so the first time is still there, and proves nothing any more."""
    for _ in range(2):
        world.revision = "older"
        await world.until_settled()
        assert world.revision == SCHEMA_HEADS[DEFAULT_VERSION]
        assert world.condition("Ready")[0] == "True"


async def test_a_password_that_a_container_prints_is_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last lines of a container go into status, Event and log: what it prints is not in our hands."""
    world = World(monkeypatch, EXTERNAL)
    world.put_secret("db", uri="postgresql://u:p%40ssword@one/mlflow")
    world.put_secret("keys", accessKeyID="k", secretAccessKey="hunter2")
    await world.reconcile()
    job = next(obj for (kind, _), obj in world.api.objects.items() if kind == "Job")
    world.end_job(job, "Failed", "can't open postgresql://u:p%40ssword@one, p@ssword, hunter2")
    await world.reconcile()
    message = world.condition("SchemaReady")[2]
    assert "can't open postgresql://u:•••@one, •••, •••" in message
    assert all("ssword" not in said and "hunter2" not in said for _, _, said in world.events.published)


async def test_env_from_is_no_way_around_what_env_must_not_set(external: World) -> None:
    """With another artifact root, nothing would be proxied any more, and nobody would know why."""
    before = inputs(external)
    external.put_secret("more", DEFAULT_ARTIFACT_ROOT="s3://elsewhere", PORT="wins-anyway", OTHER="x")
    external.change(envFrom=[{"prefix": "MLFLOW_", "secretRef": {"name": "more"}}])
    await external.reconcile()
    status, reason, message = external.condition("ServerAvailable")
    assert (status, reason) == ("False", "InvalidResource")
    assert 'Secret "more"' in message
    assert "remove MLFLOW_DEFAULT_ARTIFACT_ROOT there and use spec.artifacts" in message
    assert inputs(external) == before
    external.put_secret("more", PORT="wins-anyway", OTHER="x")
    await external.until_settled()
    assert external.condition("Ready")[0] == "True"


async def test_labels_taken_off_by_hand_come_back_and_roll_nothing(running: World) -> None:
    """An object without them is not seen at first, but still is ours, values and all."""
    before = inputs(running)
    for kind in ("Secret", "ConfigMap"):
        running.api.edit(kind, "a-server", lambda live: live["metadata"].pop("labels"))
    await running.until_settled()
    found = running.get("Secret", "a-server")
    assert found
    assert labels.SERVER in found["metadata"]["labels"]
    assert inputs(running) == before
