"""Backups of a database that is somebody else's, to a bucket elsewhere and to the artifact store."""

import hashlib
import json
from collections.abc import Callable

import pytest
import requests

from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.e2e import timeouts
from tests.e2e.external_stores import PASSWORD, secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform

STORE, VAULT = "backed-up", "vault"
NEVER = "0 0 29 2 *"
"""A schedule that hardly ever comes: backups are made by hand here."""

DONE = 120.0
"""Seconds until a Job of a small database has ended, its pod's start included."""


@pytest.mark.long_running(
    reason="four backups; test_embedded makes and restores one, tests/unit/components/backup tests each reason"
)
def test_a_backup_is_made_or_the_reason_why_not_is_reported(ns: Kube, platform: Platform) -> None:
    """Whoever mends the cause named finds a backup; meanwhile tables do not move, and the server serves."""
    database = ns.namespace.replace("-", "_")
    server = backed_up(platform, ns, database)
    faults = Faults(server)
    Scientist(server.ready().url).work("backed-up")
    faults.told("BackupReady", "BucketAccessDenied", "spec.backup.s3.credentialsSecretRef")
    ns.apply(vault(platform.minio.secret_key))
    server.look()
    server.until("BackupReady", "False", "Progressing", within=timeouts.SETTLED)

    nothing_moves_without_one(faults, platform, database)
    a_good_one_is_whole_and_told(server, platform)
    a_drained_one_begins_anew(server)
    clients_get_at_none(server, platform)


def vault(secret_key: str) -> Object:
    """The Secret with the key of the bucket for backups."""
    return secret("vault", accessKeyID="teamkey", secretAccessKey=secret_key)


def backed_up(platform: Platform, kube: Kube, database: str) -> Server:
    """A server on the platform, with backups by an image that can make none, to a bucket that its key does not open."""
    platform.make_migrated_database(database, PASSWORD)
    kube.apply(secret("database", username=database, password=PASSWORD), vault("wrong"))
    external = {
        "host": platform.postgres.host,
        "databaseName": database,
        "credentialsSecretRef": {"name": "database"},
        "tls": {"mode": "Require"},
    }
    elsewhere = {
        "endpoint": platform.minio.endpoint,
        "bucket": VAULT,
        "prefix": kube.namespace,
        "credentialsSecretRef": {"name": "vault"},
    }
    return Server(kube).apply(
        small(
            database={"external": external},
            artifacts=platform.bucket(STORE, prefix=kube.namespace),
            backup={"schedule": NEVER, "image": kube.settings.pins["IMAGE_MLFLOW"], "s3": elsewhere},
        )
    )


def nothing_moves_without_one(faults: Faults, platform: Platform, database: str) -> None:
    """Tables of an older revision: they would move, if there were a backup of them."""
    server, revise = faults.server, "UPDATE alembic_version SET version_num = '{}'"
    before = server.pod()["metadata"]["uid"]
    platform.postgres.query(revise.format(SCHEMA_HEADS["3.14.0"]), database)
    server.look()
    faults.told("UpgradeReady", "BackupRequired", "no pg_dump", "backupBeforeMigration", within=DONE)
    server.until("BackupReady", "False", "BackupFailed")
    assert server.pod()["metadata"]["uid"] == before
    server.answers()
    revision = platform.postgres.query("SELECT version_num FROM alembic_version", database).strip()
    assert revision == SCHEMA_HEADS["3.14.0"]
    platform.postgres.query(revise.format(SCHEMA_HEADS[DEFAULT_VERSION]), database)
    server.look()
    server.until("Ready", within=timeouts.NOTICED)


def a_good_one_is_whole_and_told(server: Server, platform: Platform) -> None:
    """With an image that has pg_dump: by hand, as the message says."""
    assert "--from=cronjob/tracking-backup" in server.conditions()["BackupReady"]["message"]
    server.change(backup={"image": None})
    made = by_hand(server, "by-hand")
    folder = (
        f"{server.kube.namespace}/mlflow-operator-backups/{server.kube.namespace}/tracking/{made['lastID']}/"
    )
    assert made["lastURI"] == f"s3://{VAULT}/{folder}".rstrip("/")
    client = platform.minio.client()
    found = client.list_objects_v2(Bucket=VAULT, Prefix=server.kube.namespace)["Contents"]
    assert {each["Key"] for each in found} == {f"{folder}database.dump", f"{folder}manifest.json"}
    manifest = json.load(client.get_object(Bucket=VAULT, Key=f"{folder}manifest.json")["Body"])
    dump = client.get_object(Bucket=VAULT, Key=f"{folder}database.dump")["Body"].read()
    assert dump.startswith(b"PGDMP")
    assert manifest["sha256"] == hashlib.sha256(dump).hexdigest()
    assert manifest["sizeBytes"] == len(dump) == made["lastSizeBytes"]
    assert (manifest["mlflowVersion"], manifest["schemaRevision"]) == (
        DEFAULT_VERSION,
        SCHEMA_HEADS[DEFAULT_VERSION],
    )


def a_drained_one_begins_anew(server: Server) -> None:
    """A node that is emptied for an upgrade costs no backup."""
    made = by_hand(server, "drained", lambda: evict_pod_of(server, "drained"))

    def counted() -> Object | None:
        job = server.kube.need("Job", "drained")
        return job if job["status"].get("succeeded") else None

    job = eventually("the Job is complete", counted, timeouts.SETTLED)
    assert not job["status"].get("failed")
    assert "lastFailureTime" not in made or made["lastFailureTime"] < job["metadata"]["creationTimestamp"]


def evict_pod_of(server: Server, job: str) -> None:
    """The first that it makes; waits for the one that follows."""
    kube, pods = server.kube, {"batch.kubernetes.io/job-name": job}
    (first,) = eventually("the backup has a pod", lambda: kube.list("Pod", pods), timeouts.SETTLED)
    kube.evict(first["metadata"]["name"])
    old = first["metadata"]["uid"]
    eventually(
        "another pod follows",
        lambda: {pod["metadata"]["uid"] for pod in kube.list("Pod", pods)} - {old},
        timeouts.ROLLED,
    )


def clients_get_at_none(server: Server, platform: Platform) -> None:
    """Of those in the artifact store, where they go without `s3`, by a key that opens no more than its prefix."""
    server.change(backup={"s3": None})
    made = by_hand(server, "by-hand-again")
    assert made["lastURI"].startswith(f"s3://{STORE}/{server.kube.namespace}/mlflow-operator-backups/")
    path = made["lastURI"].partition(f"/{server.kube.namespace}/")[2]
    artifacts = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    key = f"{server.kube.namespace}/{path}/manifest.json"
    assert requests.get(f"{artifacts}/{path}/manifest.json", timeout=30).status_code == 403
    assert requests.get(artifacts, params={"path": path}, timeout=30).status_code == 403
    assert requests.delete(f"{artifacts}/mlflow-operator-backups", timeout=30).status_code == 403
    assert requests.put(f"{artifacts}/{path}/manifest.json", data=b"{}", timeout=30).status_code == 403
    listed = requests.get(artifacts, timeout=30).json().get("files", [])
    assert "mlflow-operator-backups" not in {each["path"] for each in listed}
    content = platform.minio.client().get_object(Bucket=STORE, Key=key)["Body"].read()
    assert json.loads(content)["id"] == made["lastID"]


def by_hand(server: Server, name: str, meanwhile: Callable[[], None] = lambda: None) -> Object:
    """Makes a backup as a person does, of the CronJob as the spec has it now; gives `status.backup` after it."""
    kube, before = server.kube, server.status.get("backup") or {}

    def up_to_date() -> bool:
        pod = kube.need("CronJob", "tracking-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        spec = server.live()["spec"]["backup"]
        given = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        images = {each["name"]: each["image"] for each in pod["containers"]}
        place = VAULT if spec.get("s3") else STORE
        return bool(
            given["BACKUP_DESTINATION"].startswith(f"s3://{place}/") and images["pg-dump"] != images["backup"]
        )

    eventually("the CronJob is as the spec asks", up_to_date, timeouts.SETTLED)
    kube.kubectl("create", "job", "--from=cronjob/tracking-backup", name)
    meanwhile()
    eventually(
        f"Job {name} is told of",
        lambda: (server.status.get("backup") or {}).get("lastID") != before.get("lastID"),
        DONE,
    )
    server.until("BackupReady")
    return dict(server.status["backup"])
