"""Backup and restore of a database with 100,000 runs, compared with pg_dump and pg_restore with a file; and the memory
of the pods, compared with that for a tenth of the runs.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from tests.e2e.kube import Kube, Object
from tests.e2e.server import COMPONENT, SERVER_LABEL, SMALL_RESOURCES, Server, small_spec

from benchmarks import plain, stores, years
from benchmarks.capacity import Resources
from benchmarks.lab import Lab
from benchmarks.memory import WorkingSet
from benchmarks.rows import Row, ratio_at_most
from benchmarks.stores import Stores
from benchmarks.upgrade import MAX_ROUNDS, TIMEOUT_SECONDS, create_filled_database
from mlflow_operator.kube import labels
from mlflow_operator.model import resources as sizing

MAX_RATIO = 1.2
SMALL_DIVISOR = 10
RARE_SCHEDULE = "0 0 29 2 *"
"""A schedule that runs only on February 29."""

SAMPLE_INTERVAL_SECONDS = 0.2
"""Interval between two samples of a pod's memory."""

VOLUME_NAME = "scratch"
DUMP_FILE = f"/{VOLUME_NAME}/dump"


@dataclass(frozen=True)
class JobMeasurement:
    """Duration of a Job from its status, and the peak working set of its pod."""

    seconds: float
    peak_mib: float


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, the server, and the restored server with both containers of its restore pod."""
    job = Resources.of(sizing.backup()["requests"]) * 2 | Resources.of(sizing.migration()["requests"])
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * 2 + job


def measure(lab: Lab) -> list[Row]:
    """Return four rows."""
    count = years.run_count(lab.quick)
    image = lab.kube.settings.pins["IMAGE_MLFLOW"]
    shared = lab.stores()
    large_database = create_filled_database(lab, shared, image, "many", count)
    small_database = create_filled_database(lab, shared, image, "few_runs", count // SMALL_DIVISOR)
    small_backup, small_restore = _measure_operator(lab, shared, small_database)
    operator_results = []
    plain_results = []
    for round_number in range(min(lab.rounds, MAX_ROUNDS)):
        operator_results.append(_measure_operator(lab, shared, large_database))
        plain_results.append(_measure_plain(lab, shared, large_database))
        (backup_job, restore_job), (dump_seconds, restore_seconds) = operator_results[-1], plain_results[-1]
        lab.log(
            f"round {round_number + 1}: backup {backup_job.seconds:.0f} s, restore {restore_job.seconds:.0f} s; "
            f"pg_dump {dump_seconds:.0f} s, pg_restore {restore_seconds:.0f} s"
        )
    shared.drop(large_database, small_database)
    name = f"{count} runs"
    rows = [
        ratio_at_most(
            f"{name}, backup",
            [backup_job.seconds for backup_job, _ in operator_results],
            [dump_seconds for dump_seconds, _ in plain_results],
            MAX_RATIO,
            baseline_name="pg_dump to a file",
        ),
        ratio_at_most(
            f"{name}, restore",
            [restore_job.seconds for _, restore_job in operator_results],
            [restore_seconds for _, restore_seconds in plain_results],
            MAX_RATIO,
            baseline_name="pg_restore from a file",
        ),
    ]
    for operation, large_peaks, small_peak in (
        ("backup", [backup_job.peak_mib for backup_job, _ in operator_results], small_backup.peak_mib),
        ("restore", [restore_job.peak_mib for _, restore_job in operator_results], small_restore.peak_mib),
    ):
        figure = f"{name}, peak memory of the {operation} pod"
        rows.append(
            ratio_at_most(
                figure,
                large_peaks,
                [small_peak],
                MAX_RATIO,
                unit="MiB",
                baseline_name=f"with {count // SMALL_DIVISOR} runs",
            )
        )
    return rows


def _measure_operator(lab: Lab, shared: Stores, database: str) -> tuple[JobMeasurement, JobMeasurement]:
    """Measure a backup that is started from the CronJob, and the restore of a new server from it."""
    target_database = "restored"
    shared.drop(target_database)
    shared.create_database(target_database)
    try:
        with lab.namespace("backup") as kube:
            kube.apply(*shared.secrets())
            source = shared.spec(database)
            server = lab.wait_ready(
                Server(kube).apply(small_spec(**source, backup={"schedule": RARE_SCHEDULE})), TIMEOUT_SECONDS
            )
            lab.wait_for("the CronJob exists", lambda: kube.list("CronJob"), TIMEOUT_SECONDS)
            kube.kubectl("create", "job", "now", f"--from=cronjob/{server.names.backup}")
            backup_job = _measure_job(lab, kube, server, labels.BACKUP_POD)
            where = {"serverName": server.name, "s3": source["artifacts"]["s3"]}
            new = Server(kube, target_database).apply(
                small_spec(**shared.spec(target_database), restoreFrom=where)
            )
            restore_job = _measure_job(lab, kube, new, labels.RESTORE_POD)
            lab.wait_ready(new, TIMEOUT_SECONDS)
            return backup_job, restore_job
    finally:
        shared.drop(target_database)


def _measure_job(lab: Lab, kube: Kube, server: Server, component: str) -> JobMeasurement:
    """Watch the only Job of a component from its first pod until it succeeds."""
    pod_labels = {SERVER_LABEL: server.name, COMPONENT: component}

    def pods() -> list[Object]:
        return kube.list("Pod", pod_labels)

    def is_complete(name: str) -> bool:
        state = kube.require("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--all-containers", "--tail=20"))
        return bool(state.get("completionTime"))

    lab.wait_for(f"the {component} has a pod", pods, TIMEOUT_SECONDS)
    meta = pods()[0]["metadata"]
    (job,) = (ref["name"] for ref in meta["ownerReferences"] if ref["kind"] == "Job")
    with WorkingSet(kube, meta["uid"], SAMPLE_INTERVAL_SECONDS) as memory:
        lab.wait_for(f"the Job of the {component} is complete", partial(is_complete, job), TIMEOUT_SECONDS)
    return JobMeasurement(job_seconds(kube.require("Job", job)), memory.peak_mib)


def job_seconds(job: Object) -> float:
    """Return the duration of a Job in seconds, from its status, which has a resolution of one second."""
    start, end = (datetime.fromisoformat(job["status"][key]) for key in ("startTime", "completionTime"))
    return (end - start).total_seconds()


def _measure_plain(lab: Lab, shared: Stores, database: str) -> tuple[float, float]:
    """Return the seconds of pg_dump and of pg_restore, each as a Job, with a volume for the file."""
    target_database = "plain_restored"
    shared.drop(target_database)
    shared.create_database(target_database)
    try:
        with lab.namespace("plain") as kube:
            kube.apply(_volume())
            dump = f'exec pg_dump --format=custom --file={DUMP_FILE} "${plain.URI_VARIABLE}"'
            restore = (
                f'exec pg_restore --no-owner --exit-on-error --dbname="${plain.URI_VARIABLE}" {DUMP_FILE}'
            )
            return (
                _run_plain_job(lab, kube, "dump", dump, shared.uri(database, "postgresql")),
                _run_plain_job(lab, kube, "restore", restore, shared.uri(target_database, "postgresql")),
            )
    finally:
        shared.drop(target_database)


def _run_plain_job(lab: Lab, kube: Kube, name: str, script: str, uri: str) -> float:
    job_object = plain.job_manifest(
        name, kube.settings.pins["IMAGE_POSTGRES"], ["sh", "-c", script], {plain.URI_VARIABLE: uri}
    )
    pod = job_object["spec"]["template"]["spec"]
    pod["containers"][0]["volumeMounts"].append({"name": VOLUME_NAME, "mountPath": f"/{VOLUME_NAME}"})
    pod["volumes"].append({"name": VOLUME_NAME, "persistentVolumeClaim": {"claimName": VOLUME_NAME}})
    kube.apply(job_object)

    def is_complete() -> bool:
        state = kube.require("Job", name).get("status") or {}
        if state.get("failed"):
            raise RuntimeError(kube.kubectl("logs", f"job/{name}", "--tail=20"))
        return bool(state.get("completionTime"))

    lab.wait_for(f"the Job {name} is complete", is_complete, TIMEOUT_SECONDS)
    return job_seconds(kube.require("Job", name))


def _volume() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME_NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }
