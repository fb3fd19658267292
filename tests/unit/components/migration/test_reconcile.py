"""Changing a version, in the moments that a real cluster can't be stopped at."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import CutOff, World, answer, version_of

OLD = "3.14.0"
IMAGE = "ghcr.io/mlflow/mlflow:v{}-full"


async def serving(monkeypatch: pytest.MonkeyPatch, version: str, **spec: Any) -> World:
    """A server of that version, Ready and at rest."""
    world = World(monkeypatch, {"version": version, **spec})
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    return world


@pytest.fixture
async def old(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server whose tables have to move for the version tested."""
    return await serving(monkeypatch, OLD)


@pytest.fixture
async def new(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server of the version tested."""
    return await serving(monkeypatch, DEFAULT_VERSION)


def jobs(world: World, kind: str) -> list[Object]:
    """Jobs of a kind: migrate, preflight."""
    return [o for (k, name), o in world.api.objects.items() if k == "Job" and f"-{kind}-" in name]


def deployment(world: World) -> Object:
    """The server's."""
    found = world.get("Deployment", "a")
    assert found
    return found


def image(world: World) -> str:
    """What the pods run."""
    return str(deployment(world)["spec"]["template"]["spec"]["containers"][0]["image"])


def status(world: World) -> Object:
    """As it is stored."""
    found = world.get("MLflowServer", "a")
    assert found
    return dict(found["status"])


async def asked(world: World, **spec: Any) -> Object:
    """The owner changes the spec, and a preflight begins; gives its Job."""
    world.change(**spec)
    await world.reconcile()
    (job,) = jobs(world, "preflight")
    return job


async def migrating(world: World) -> Object:
    """To the tested version, until its migration Job begins; gives it."""
    before = {job["metadata"]["uid"] for job in jobs(world, "migrate")}
    world.end_job(await asked(world, version=DEFAULT_VERSION), "Complete")
    for _ in range(4):
        await world.reconcile()
        world.settle(jobs=False)
    (job,) = (job for job in jobs(world, "migrate") if job["metadata"]["uid"] not in before)
    return job


def running(world: World, job: Object) -> None:
    """The Job's container runs."""
    world.end_container(job, 0, "")
    name = f"{job['metadata']['name']}-pod"
    state = {"containerStatuses": [{"name": "migrate", "state": {"running": {}}}], "phase": "Running"}
    spec = job["spec"]["template"]["spec"]
    world.api.edit("Pod", name, lambda live: live.update(status=state, spec=spec))


async def test_nothing_is_touched_before_the_image_has_answered(old: World) -> None:
    """The pods are the very same ones; the Job runs the new image in the server's own environment."""
    before = deployment(old)
    job = await asked(old, version=DEFAULT_VERSION)
    assert deployment(old) == before
    status_, reason, message = old.condition("UpgradeReady")
    assert (status_, reason) == ("False", "Progressing")
    assert "Nothing is touched yet" in message
    assert old.condition("ServerAvailable")[0] == "True"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (server,) = before["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE.format(DEFAULT_VERSION)
    assert {variable["name"]: variable for variable in container["env"]} == {
        v["name"]: v for v in server["env"]
    }
    assert container["volumeMounts"] == server["volumeMounts"]
    assert len(job["metadata"]["name"].removeprefix("a-preflight-")) == 8


async def test_servers_stop_while_tables_move(old: World) -> None:
    """By default: nobody reads or writes them meanwhile. How long nobody answered stands in the status."""
    old.now = "2026-01-01T01:00:00Z"
    await migrating(old)
    assert deployment(old)["spec"]["replicas"] == 0
    assert image(old) == IMAGE.format(OLD)
    assert old.get("Pod", "a-pod") is None
    assert old.condition("Ready")[:2] == ("False", "Progressing")
    old.now = "2026-01-01T01:00:42Z"
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(DEFAULT_VERSION), 1)
    assert status(old)["version"] == DEFAULT_VERSION
    assert status(old)["upgrade"] == {
        "fromVersion": OLD,
        "toVersion": DEFAULT_VERSION,
        "fromRevision": SCHEMA_HEADS[OLD],
        "toRevision": SCHEMA_HEADS[DEFAULT_VERSION],
        "startTime": "2026-01-01T01:00:00Z",
        "completionTime": "2026-01-01T01:00:42Z",
        "downtimeSeconds": 42,
    }
    assert not jobs(old, "preflight")


async def test_no_table_moves_under_a_pod_that_is_on_its_way_out(old: World) -> None:
    """It may still write, for as long as its last requests take."""
    old.end_job(await asked(old, version=DEFAULT_VERSION), "Complete")
    for _ in range(3):
        await old.reconcile()  # and Kubernetes does nothing: the pod is still there
    assert deployment(old)["spec"]["replicas"] == 0
    assert len(jobs(old, "migrate")) == 1
    assert "are being stopped" in old.condition("SchemaReady")[2]


async def test_servers_go_on_while_tables_move_if_their_owner_accepts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RollingUpdate: nobody ever stops them."""
    old = await serving(monkeypatch, OLD, upgrade={"strategy": "RollingUpdate"})
    await migrating(old)
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD), 1)
    await old.until_settled()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)
    assert old.condition("Ready")[0] == "True"
    assert status(old)["upgrade"]["downtimeSeconds"] == 0


async def test_where_the_tables_fit_nobody_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch release: one pod after another, and no migration Job."""
    world = await serving(monkeypatch, "3.17.0")
    world.end_job(await asked(world, version=DEFAULT_VERSION), "Complete")
    await world.reconcile()
    assert (image(world), deployment(world)["spec"]["replicas"]) == (IMAGE.format(DEFAULT_VERSION), 1)
    await world.until_settled()
    assert len(jobs(world, "migrate")) == 1, "the first start's"
    assert not jobs(world, "preflight")
    told = status(world)["upgrade"]
    assert (told["fromVersion"], told["toVersion"], told["downtimeSeconds"]) == ("3.17.0", DEFAULT_VERSION, 0)


async def test_what_is_not_an_upgrade_asks_nobody(new: World) -> None:
    """A first start has none to wait for, nor has any other change, or an image that somebody set by hand."""
    new.change(workers=3, replicas=2)
    await new.until_settled()
    new.api.edit(
        "Deployment",
        "a",
        lambda live: live["spec"]["template"]["spec"]["containers"][0].update(image="theirs:1"),
    )
    await new.until_settled()
    assert image(new) == IMAGE.format(DEFAULT_VERSION)
    assert not [name for _, name in new.api.writes if "preflight" in name]
    assert "upgrade" not in status(new)


async def test_a_downgrade_is_refused_and_the_server_serves_on_untouched(new: World) -> None:
    """An unknown revision: there is no way down, so the message names the ways out."""
    before = deployment(new)
    new.change(version=OLD)
    await new.until_settled()
    state, reason, message = new.condition("UpgradeReady")
    assert (state, reason) == ("False", "SchemaNewerThanImage")
    assert f"go back to version {DEFAULT_VERSION}" in message
    assert "restore one" in message
    assert deployment(new) == before
    assert new.condition("ServerAvailable")[0] == "True"
    assert new.condition("Ready")[1] == "SchemaNewerThanImage"
    assert (False, reason, message) in new.events.published
    assert "upgrade" not in status(new)
    new.change(version=DEFAULT_VERSION)
    await new.until_settled()
    assert new.condition("Ready")[0] == "True"
    assert not jobs(new, "preflight")


async def test_a_backup_that_is_put_back_opens_the_way_down(new: World) -> None:
    """What was answered about the database of before is not true any more: the image is asked again."""
    new.change(version=OLD)
    await new.until_settled()
    new.revision = SCHEMA_HEADS[OLD]
    await new.until_settled()
    assert new.condition("Ready")[0] == "True"
    assert image(new) == IMAGE.format(OLD)


async def test_a_database_that_a_newer_server_has_moved_is_refused_at_a_first_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server made anew on data of a newer one, with an older version named."""
    world = World(monkeypatch, {"version": OLD})
    world.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await world.until_settled()
    state, reason, message = world.condition("Ready")
    assert (state, reason) == ("False", "SchemaNewerThanImage")
    assert f"go back to version {DEFAULT_VERSION}" in message
    assert world.get("Deployment", "a") is None
    assert world.revision == SCHEMA_HEADS[DEFAULT_VERSION]


def refusing(kind: str, said: str) -> str:
    """An answer with one fault."""
    return json.dumps(
        json.loads(answer(IMAGE.format(DEFAULT_VERSION), SCHEMA_HEADS[OLD]))
        | {"faults": [{"kind": kind, "said": said}]}
    )


async def test_what_a_preflight_finds_is_told_and_asked_again_until_it_is_mended(old: World) -> None:
    """The server of before serves on; and who mends the cause need do nothing else."""
    before = deployment(old)
    old.end_job(await asked(old, version=DEFAULT_VERSION), "Failed", refusing("bucket", "403 Forbidden"))
    await old.reconcile()
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "PreflightFailed")
    assert "artifact store: 403 Forbidden" in message
    assert f"Nothing was touched; version {OLD} serves on" in message
    assert f"set spec.version back to {OLD}" in message
    (first,) = jobs(old, "preflight")
    old.events.published.clear()
    old.now = "2026-01-01T00:00:15Z"
    await old.reconcile()
    (second,) = jobs(old, "preflight")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await old.reconcile()
    assert old.condition("UpgradeReady") == (state, reason, message), "the same until it does better"
    assert not old.events.published
    assert deployment(old) == before
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


FIT = answer(IMAGE.format(DEFAULT_VERSION), SCHEMA_HEADS[OLD])


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("Complete", 0, ""),
        ("Complete", 0, "all is well"),
        ("Complete", 0, FIT.replace('"forward"', '"sideways"')),
        ("Complete", 0, FIT.replace(', "faults": []', "")),
        ("Complete", 0, FIT + " " * 3072),
        ("Complete", 1, FIT),
        ("Failed", 0, FIT),
        ("Failed", 1, "ModuleNotFoundError: No module named 'mlflow'"),
    ],
)
async def test_no_answer_is_never_leave_to_go_on(old: World, how: str, code: int, said: str) -> None:
    """However the Job ended, and whatever it left in the place of an answer."""
    before = deployment(old)
    job = await asked(old, version=DEFAULT_VERSION)
    old.end_job(job, how, said or "-")
    old.end_container(job, code, said, "Succeeded")
    for _ in range(3):
        await old.reconcile()
    assert old.condition("UpgradeReady")[:2] == ("False", "PreflightFailed")
    assert "gave no answer" in old.condition("UpgradeReady")[2]
    assert deployment(old) == before
    assert len(jobs(old, "migrate")) == 1


async def test_a_preflight_whose_pod_is_gone_is_asked_again(old: World) -> None:
    """What it said went with its pod."""
    job = await asked(old, version=DEFAULT_VERSION)
    old.end_job(job, "Complete")
    del old.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await old.reconcile()
    assert "gave no answer" in old.condition("UpgradeReady")[2]
    old.now = "2026-01-01T00:00:15Z"
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_an_image_that_holds_another_version_is_told(old: World) -> None:
    """A mirror's tag may lie."""
    said = FIT.replace(f'"version": "{DEFAULT_VERSION}"', '"version": "3.16.9"')
    old.end_job(await asked(old, version=DEFAULT_VERSION), "Complete", said)
    await old.reconcile()
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "PreflightFailed")
    assert f"holds MLflow 3.16.9, and {DEFAULT_VERSION} was asked for" in message
    assert image(old) == IMAGE.format(OLD)


async def test_an_image_of_ones_own_makes_its_first_tables_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's data is there to harm; and a look while its migration is at work finds tables at some revision."""
    world = World(monkeypatch, {"image": "own/mlflow:9"})
    while not jobs(world, "migrate"):
        world.settle(jobs=False)
        await world.reconcile()
    for revision in ("half-way", SCHEMA_HEADS[DEFAULT_VERSION]):
        world.revision = revision
        await world.reconcile()
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert not [what for _, what in world.api.writes if "-preflight-" in what]


async def test_the_version_of_an_image_of_ones_own_is_what_it_says(old: World) -> None:
    """Where the spec names none."""
    old.change(version=None, image="own/mlflow:9")
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert (status(old)["version"], status(old)["image"]) == (DEFAULT_VERSION, "own/mlflow:9")
    assert status(old)["upgrade"]["toVersion"] == DEFAULT_VERSION


async def test_servers_do_not_stop_for_a_migration_that_would_be_refused(old: World) -> None:
    """What the operator itself sees in the database counts as well."""
    old.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    old.end_job(await asked(old, version=DEFAULT_VERSION), "Complete")
    await old.reconcile()
    assert old.condition("UpgradeReady") == ("False", "DatabasePrivilegeMissing", "The user may not.")
    assert deployment(old)["spec"]["replicas"] == 1


async def test_a_failed_migration_gives_the_old_server_back(old: World) -> None:
    """Its tables are as they were. It is not tried again by itself: each try would stop the servers."""
    old.end_job(await migrating(old), "Failed", "boom: no space")
    for moment in ("2026-01-01T00:01:00Z", "2026-01-01T09:00:00Z"):
        old.now = moment
        await old.until_settled()
    state, reason, message = old.condition("SchemaReady")
    assert (state, reason) == ("False", "MigrationFailed")
    assert "boom: no space" in message
    assert "not tried again by itself" in message
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD), 1)
    assert old.condition("ServerAvailable")[0] == "True"
    assert old.condition("Ready")[1] == "MigrationFailed"


async def test_deleting_the_job_that_failed_tries_once_more(old: World) -> None:
    """As its message says."""
    job = await migrating(old)
    old.end_job(job, "Failed", "boom")
    await old.until_settled()
    del old.api.objects["Job", job["metadata"]["name"]]
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)
    assert status(old)["upgrade"]["completionTime"]


async def test_changing_the_version_back_recovers_from_a_failed_migration(old: World) -> None:
    """And leaves nothing behind that a later upgrade would stumble over."""
    old.end_job(await migrating(old), "Failed", "boom")
    await old.until_settled()
    old.change(version=OLD)
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert "upgrade" not in status(old)
    assert image(old) == IMAGE.format(OLD)
    old.change(version=DEFAULT_VERSION)
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_a_migration_that_broke_off_after_its_last_word_counts(old: World) -> None:
    """The transaction was committed, and the pod died before it could say so."""
    job = await migrating(old)
    old.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    old.end_job(job, "Failed", "")
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_changed_back_while_tables_move_the_servers_wait_for_the_end(old: World) -> None:
    """An old server must not come up on tables that are about to be others."""
    job = await migrating(old)
    running(old, job)
    old.change(version=OLD)
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    assert job["metadata"]["name"] in old.condition("SchemaReady")[2]
    del old.api.objects["Job", job["metadata"]["name"]]  # its pod has not ended yet
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    del old.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD), 1)


async def test_changed_back_between_a_pod_and_its_jobs_end_the_servers_wait(old: World) -> None:
    """The pod may be made again: of a drained node, say."""
    job = await migrating(old)
    old.end_container(job, 143, "", "Failed")
    old.change(version=OLD)
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    assert job["metadata"]["name"] in old.condition("SchemaReady")[2]


async def test_changed_back_a_migration_that_never_began_never_begins(old: World) -> None:
    """Its image can't be pulled by this node, say; later it could, under servers of the version before."""
    job = await migrating(old)
    old.change(version=OLD)
    await old.reconcile()
    assert old.get("Job", job["metadata"]["name"]) is None
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD), 1)


async def test_changed_back_too_late_the_newer_tables_are_told(old: World) -> None:
    """The migration came to its end: only the new version, or a backup, can serve now."""
    job = await migrating(old)
    running(old, job)
    old.change(version=OLD)
    await old.reconcile()
    old.end_job(job, "Complete")
    await old.until_settled()
    assert old.condition("Ready")[1] == "SchemaNewerThanImage"
    assert f"go back to version {DEFAULT_VERSION}" in old.condition("Ready")[2]
    old.change(version=DEFAULT_VERSION)
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"


async def test_a_server_that_waits_for_a_way_out_is_still_looked_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused upgrade may stand for days: a rotated password reaches the pods, and deleted pods come back."""
    world = await World.on_external_stores(monkeypatch)
    world.change(version=OLD)
    await world.until_settled()
    assert world.condition("UpgradeReady")[1] == "SchemaNewerThanImage"
    before = deployment(world)["spec"]["template"]["metadata"]["annotations"][labels.INPUTS]
    world.put_secret("keys", accessKeyID="k", secretAccessKey="another")
    await world.until_settled()
    assert deployment(world)["spec"]["template"]["metadata"]["annotations"][labels.INPUTS] != before
    world.change(replicas=2)
    await world.until_settled()
    assert deployment(world)["spec"]["replicas"] == 2
    del world.api.objects["Deployment", "a"]
    await world.until_settled()
    assert image(world) == IMAGE.format(DEFAULT_VERSION)
    assert world.condition("ServerAvailable")[0] == "True"


async def test_a_server_that_slept_wakes_to_the_version_asked_for(old: World) -> None:
    """What it is made from waits with it: no pod of one version by the manifest of another."""
    old.change(suspend=True)
    await old.until_settled()
    asleep = deployment(old)["spec"]["template"]
    old.change(version=DEFAULT_VERSION)
    await old.until_settled()
    assert deployment(old)["spec"]["template"] == asleep
    old.change(suspend=False)
    await old.until_settled()
    assert old.condition("Ready")[0] == "True"
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_the_same_upgrade_after_a_backup_moves_the_tables_again(old: World) -> None:
    """The Job that did so the first time is still there, and proves nothing any more."""
    for _ in range(2):
        old.change(version=DEFAULT_VERSION)
        await old.until_settled()
        assert (old.revision, image(old)) == (SCHEMA_HEADS[DEFAULT_VERSION], IMAGE.format(DEFAULT_VERSION))
        old.change(version=OLD)
        old.revision = SCHEMA_HEADS[OLD]
        await old.until_settled()
        assert (old.condition("Ready")[0], image(old)) == ("True", IMAGE.format(OLD))


class Rules:
    """Looks at every Job as it is made: what must never be, however often the operator dies."""

    def __init__(self, world: World, *, backed_up: bool = False) -> None:
        self.world, self.note, self.backed_up = world, world.api._note, backed_up
        world.api._note = self  # type: ignore[method-assign]

    def __call__(self, verb: str, obj: Object) -> None:
        """Passes it on if all is as it should be."""
        if verb == "create" and obj["kind"] == "Job":
            kinds = ("migrate", "preflight", "backup")
            open_ = [j for kind in kinds for j in jobs(self.world, kind) if "status" not in j]
            assert not open_, "two Jobs at once"
            if "-migrate-" in obj["metadata"]["name"] and self.world.get("Deployment", "a"):
                assert deployment(self.world)["spec"]["replicas"] == 0
                assert self.world.get("Pod", "a-pod") is None, "a table moves under a pod"
                assert jobs(self.world, "backup") or not self.backed_up, "a table moves that is in no backup"
        if obj["kind"] == "Deployment" and verb == "apply":
            (container,) = obj["spec"]["template"]["spec"]["containers"]
            assert self.world.revision == SCHEMA_HEADS[version_of(container["image"])], "pods on other tables"
        self.note(verb, obj)


@pytest.mark.parametrize("spec", [{}, {"backup": {}}], ids=["plain", "backed up"])
async def test_killed_at_any_step_of_an_upgrade_it_ends_well(
    monkeypatch: pytest.MonkeyPatch, spec: Object
) -> None:
    """For each N: the process dies after the Nth write of an upgrade, a fresh one goes on from what it finds."""
    whole = await serving(monkeypatch, OLD, **spec)
    first = len(whole.api.writes)
    whole.change(version=DEFAULT_VERSION)
    await whole.until_settled()
    count = len(whole.api.writes) - first
    assert count > 8, whole.api.writes[first:]
    for n in range(count):
        world = await serving(monkeypatch, OLD, **spec)
        Rules(world, backed_up=bool(spec))
        world.api.dies_after = len(world.api.writes) + n
        world.change(version=DEFAULT_VERSION)
        with pytest.raises((CutOff, BaseExceptionGroup)):
            await world.until_settled()
        world.api.dies_after = None
        await world.until_settled()
        at = f"cut off after write {n}: {whole.api.writes[first:][n]}"
        assert world.condition("Ready")[0] == "True", at
        assert (image(world), deployment(world)["spec"]["replicas"]) == (IMAGE.format(DEFAULT_VERSION), 1), at
        assert status(world)["version"] == DEFAULT_VERSION, at
        assert [len(jobs(world, kind)) for kind in ("migrate", "preflight", "backup")] == [2, 0, 0], at
        told = status(world)["upgrade"]
        assert (told["fromVersion"], told["toVersion"]) == (OLD, DEFAULT_VERSION), at
        assert told["completionTime"], at


async def test_killed_at_any_step_of_a_failing_upgrade_the_old_server_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same, where the migration fails: whoever comes after gives the old server back."""

    async def story(world: World) -> None:
        for _ in range(10):
            world.settle(jobs=False)
            for job in jobs(world, "preflight"):
                if "status" not in job:
                    world.end_job(job, "Complete")
            for job in jobs(world, "migrate"):
                if "status" not in job:
                    world.end_job(job, "Failed", "boom")
            await world.reconcile()

    whole = await serving(monkeypatch, OLD)
    first = len(whole.api.writes)
    whole.change(version=DEFAULT_VERSION)
    await story(whole)
    for n in range(len(whole.api.writes) - first):
        world = await serving(monkeypatch, OLD)
        Rules(world)
        world.api.dies_after = len(world.api.writes) + n
        world.change(version=DEFAULT_VERSION)
        with pytest.raises((CutOff, BaseExceptionGroup)):
            await story(world)
        world.api.dies_after = None
        await story(world)
        at = f"cut off after write {n}: {whole.api.writes[first:][n]}"
        assert world.condition("SchemaReady")[1] == "MigrationFailed", at
        assert (image(world), deployment(world)["spec"]["replicas"]) == (IMAGE.format(OLD), 1), at
        assert world.condition("ServerAvailable")[0] == "True", at
        world.change(version=OLD)
        await world.until_settled()
        assert world.condition("Ready")[0] == "True", at
