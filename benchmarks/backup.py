"""A database of 100,000 runs into a bucket and out of it again, beside pg_dump and pg_restore with a file between them;
and what the pods' memory shows of ten times as many runs.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from tests.e2e.kube import Kube, Object
from tests.e2e.server import COMPONENT, SERVER_LABEL, Server, small

from benchmarks import plain, stores, years
from benchmarks.lab import Lab, until
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, at_most
from benchmarks.stores import Stores
from benchmarks.upgrade import LONG, ROUNDS, template
from mlflow_operator.core import labels

LIMIT = 1.2
TENTH = 10
NEVER = "0 0 29 2 *"
"""A schedule that comes once in four years."""

PAUSE = 0.2
"""Seconds between two looks at a pod's memory."""

SCRATCH = "scratch"
FILE = f"/{SCRATCH}/dump"


@dataclass(frozen=True)
class Taken:
    """What a Job took: seconds, as Kubernetes tells them, and its pod's working set at the most, in MiB."""

    seconds: float
    peak: float


def take(lab: Lab) -> list[Row]:
    """Four rows."""
    count = years.runs(lab.quick)
    image = lab.kube.settings.pins["IMAGE_MLFLOW"]
    with lab.namespace("stores") as kube:
        shared = stores.start(kube)
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
                f"round {turn + 1}: in {up.seconds:.0f} s, out {down.seconds:.0f} s; "
                f"plainly {dumped:.0f} s, {restored:.0f} s"
            )
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
    """A backup as a person has one made, and a new server that begins with it."""
    empty = "restored"
    shared.drop(empty)
    shared.database(empty)
    try:
        with lab.namespace("backup") as kube:
            kube.apply(*shared.secrets())
            source = shared.spec(database)
            server = Server(kube).apply(small(**source, backup={"schedule": NEVER})).ready(LONG)
            until("there is a CronJob", lambda: kube.list("CronJob"), LONG)
            kube.kubectl("create", "job", "now", f"--from=cronjob/{server.names.backup}")
            made = _taken(kube, server, labels.BACKUP_POD)
            where = {"serverName": server.name, "s3": source["artifacts"]["s3"]}
            new = Server(kube, empty).apply(small(**shared.spec(empty), restoreFrom=where))
            restored = _taken(kube, new, labels.RESTORE_POD)
            new.ready(LONG)
            return made, restored
    finally:
        shared.drop(empty)


def _taken(kube: Kube, server: Server, component: str) -> Taken:
    """Watches the one Job of a kind from its first pod to its good end."""
    chosen = {SERVER_LABEL: server.name, COMPONENT: component}

    def pods() -> list[Object]:
        return kube.list("Pod", chosen)

    def over(name: str) -> bool:
        state = kube.need("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--all-containers", "--tail=20"))
        return bool(state.get("completionTime"))

    until(f"the {component} has a pod", pods, LONG)
    meta = pods()[0]["metadata"]
    (job,) = (ref["name"] for ref in meta["ownerReferences"] if ref["kind"] == "Job")
    with WorkingSet(kube, meta["uid"], PAUSE) as memory:
        until(f"the {component} is done", partial(over, job), LONG)
    return Taken(seconds(kube.need("Job", job)), memory.peak)


def seconds(job: Object) -> float:
    """From a Job's start to its end, as its status tells them: whole seconds."""
    ends = (datetime.fromisoformat(job["status"][key]) for key in ("startTime", "completionTime"))
    began, ended = ends
    return (ended - began).total_seconds()


def _plainly(lab: Lab, shared: Stores, database: str) -> tuple[float, float]:
    """The two programs, each as a Job, and a volume for the file between them. Seconds each took."""
    empty = "plainly"
    shared.drop(empty)
    shared.database(empty)
    try:
        with lab.namespace("plainly") as kube:
            kube.apply(_volume())
            dump = f'exec pg_dump --format=custom --file={FILE} "${plain.URI}"'
            restore = f'exec pg_restore --no-owner --exit-on-error --dbname="${plain.URI}" {FILE}'
            return (
                _one(kube, "dump", dump, shared.uri(database, "postgresql")),
                _one(kube, "restore", restore, shared.uri(empty, "postgresql")),
            )
    finally:
        shared.drop(empty)


def _one(kube: Kube, name: str, script: str, uri: str) -> float:
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

    until(f"{name} is done", over, LONG)
    return seconds(kube.need("Job", name))


def _volume() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": SCRATCH},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }
