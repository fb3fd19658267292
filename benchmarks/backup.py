"""Backup and restore of a database with 100,000 runs, beside pg_dump to a file and pg_restore of it; and the memory of
the pods, beside that for a tenth of the runs.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from tests.e2e.kube import Kube, Object
from tests.e2e.server import COMPONENT, LITTLE, SERVER_LABEL, Server, small

from benchmarks import plain, stores, years
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, at_most
from benchmarks.stores import Stores
from benchmarks.upgrade import LONG, ROUNDS, template
from mlflow_operator.kube import labels
from mlflow_operator.model import resources as sizing

LIMIT = 1.2
TENTH = 10
NEVER = "0 0 29 2 *"
"""A schedule that is due once in four years."""

PAUSE = 0.2
"""Seconds between two samples of a pod's memory."""

SCRATCH = "scratch"
FILE = f"/{SCRATCH}/dump"


@dataclass(frozen=True)
class Taken:
    """The seconds that a Job took, from its status, and the peak of its pod's working set in MiB."""

    seconds: float
    peak: float


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, the server, and the restored server with both containers of its restore pod."""
    job = Resources.of(sizing.backup()["requests"]) * 2 | Resources.of(sizing.migration()["requests"])
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * 2 + job


def take(lab: Lab) -> list[Row]:
    """Four rows."""
    count = years.runs(lab.quick)
    image = lab.kube.settings.pins["IMAGE_MLFLOW"]
    shared = lab.stores()
    many = template(lab, shared, image, "many", count)
    few = template(lab, shared, image, "few_runs", count // TENTH)
    small_in, small_out = _ours(lab, shared, few)
    ours = []
    plainly = []
    for turn in range(min(lab.rounds, ROUNDS)):
        ours.append(_ours(lab, shared, many))
        plainly.append(_plainly(lab, shared, many))
        (up, down), (dumped, restored) = ours[-1], plainly[-1]
        lab.say(
            f"round {turn + 1}: backup {up.seconds:.0f} s, restore {down.seconds:.0f} s; "
            f"pg_dump {dumped:.0f} s, pg_restore {restored:.0f} s"
        )
    shared.drop(many, few)
    name = f"{count} runs"
    rows = [
        at_most(
            f"{name}, backed up",
            [up.seconds for up, _ in ours],
            [dumped for dumped, _ in plainly],
            LIMIT,
            what="pg_dump to a file",
        ),
        at_most(
            f"{name}, restored",
            [down.seconds for _, down in ours],
            [restored for _, restored in plainly],
            LIMIT,
            what="pg_restore of a file",
        ),
    ]
    for what, more, less in (
        ("backup", [up.peak for up, _ in ours], small_in.peak),
        ("restore", [down.peak for _, down in ours], small_out.peak),
    ):
        figure = f"{name}, memory of the {what}'s pod at the most"
        rows.append(at_most(figure, more, [less], LIMIT, unit="MiB", what=f"of {count // TENTH} runs"))
    return rows


def _ours(lab: Lab, shared: Stores, database: str) -> tuple[Taken, Taken]:
    """A backup that a user starts from the CronJob, and a new server that is restored from it."""
    empty = "restored"
    shared.drop(empty)
    shared.database(empty)
    try:
        with lab.namespace("backup") as kube:
            kube.apply(*shared.secrets())
            source = shared.spec(database)
            server = lab.ready(Server(kube).apply(small(**source, backup={"schedule": NEVER})), LONG)
            lab.until("the CronJob exists", lambda: kube.list("CronJob"), LONG)
            kube.kubectl("create", "job", "now", f"--from=cronjob/{server.names.backup}")
            made = _taken(lab, kube, server, labels.BACKUP_POD)
            where = {"serverName": server.name, "s3": source["artifacts"]["s3"]}
            new = Server(kube, empty).apply(small(**shared.spec(empty), restoreFrom=where))
            restored = _taken(lab, kube, new, labels.RESTORE_POD)
            lab.ready(new, LONG)
            return made, restored
    finally:
        shared.drop(empty)


def _taken(lab: Lab, kube: Kube, server: Server, component: str) -> Taken:
    """Watches the only Job of a component from its first pod until it succeeds."""
    chosen = {SERVER_LABEL: server.name, COMPONENT: component}

    def pods() -> list[Object]:
        return kube.list("Pod", chosen)

    def over(name: str) -> bool:
        state = kube.need("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--all-containers", "--tail=20"))
        return bool(state.get("completionTime"))

    lab.until(f"the {component} has a pod", pods, LONG)
    meta = pods()[0]["metadata"]
    (job,) = (ref["name"] for ref in meta["ownerReferences"] if ref["kind"] == "Job")
    with WorkingSet(kube, meta["uid"], PAUSE) as memory:
        lab.until(f"the Job of the {component} is complete", partial(over, job), LONG)
    return Taken(seconds(kube.need("Job", job)), memory.peak)


def seconds(job: Object) -> float:
    """Seconds from a Job's start to its completion, from its status: whole seconds."""
    ends = (datetime.fromisoformat(job["status"][key]) for key in ("startTime", "completionTime"))
    began, ended = ends
    return (ended - began).total_seconds()


def _plainly(lab: Lab, shared: Stores, database: str) -> tuple[float, float]:
    """Seconds of pg_dump and of pg_restore, each as a Job, with a volume for the file."""
    empty = "plainly"
    shared.drop(empty)
    shared.database(empty)
    try:
        with lab.namespace("plainly") as kube:
            kube.apply(_volume())
            dump = f'exec pg_dump --format=custom --file={FILE} "${plain.URI}"'
            restore = f'exec pg_restore --no-owner --exit-on-error --dbname="${plain.URI}" {FILE}'
            return (
                _one(lab, kube, "dump", dump, shared.uri(database, "postgresql")),
                _one(lab, kube, "restore", restore, shared.uri(empty, "postgresql")),
            )
    finally:
        shared.drop(empty)


def _one(lab: Lab, kube: Kube, name: str, script: str, uri: str) -> float:
    made = plain.job(name, kube.settings.pins["IMAGE_POSTGRES"], ["sh", "-c", script], {plain.URI: uri})
    pod = made["spec"]["template"]["spec"]
    pod["containers"][0]["volumeMounts"].append({"name": SCRATCH, "mountPath": f"/{SCRATCH}"})
    pod["volumes"].append({"name": SCRATCH, "persistentVolumeClaim": {"claimName": SCRATCH}})
    kube.apply(made)

    def over() -> bool:
        state = kube.need("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--tail=20"))
        return bool(state.get("completionTime"))

    lab.until(f"the Job {name} is complete", over, LONG)
    return seconds(kube.need("Job", name))


def _volume() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": SCRATCH},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }
