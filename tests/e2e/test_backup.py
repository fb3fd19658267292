"""Backups of an external database to a separate bucket and to the artifact store."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.e2e import timeouts
from tests.e2e.external_stores import PASSWORD, Postgres, secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

ARTIFACTS_BUCKET, BACKUP_BUCKET = "backed-up", "vault"
RARE_SCHEDULE = "0 0 29 2 *"
"""Runs only on February 29: the test creates backups by `kubectl create job`."""

JOB_TIMEOUT_SECONDS = 120.0
"""Limit for a Job of a small database, its pod's start included."""


@pytest.mark.long_running(
    reason="four backups; test_embedded makes and restores one, tests/unit/components/backup tests each reason"
)
def test_backup_succeeds_or_failure_is_reported(ns: Kube, platform: Platform) -> None:
    """Fixing the reported cause is enough. Until then the schema is not migrated, and the server keeps serving."""
    database = ns.namespace.replace("-", "_")
    server = server_with_backups(platform, ns, database)
    faults = FaultExpectations(server)
    Workload(server.wait_ready().url).log_data("backed-up")
    faults.expect("BackupReady", "BucketAccessDenied", "spec.backup.s3.credentialsSecretRef")
    ns.apply(backup_secret(platform.minio.secret_key))
    server.trigger_reconcile()
    server.wait_for("BackupReady", "False", "Progressing", within=timeouts.STATUS_SECONDS)

    check_migration_requires_backup(faults, platform, database)
    check_backup_is_complete(server, platform)
    check_backup_survives_eviction(server, platform, database)
    check_clients_cannot_access_backups(server, platform)


def backup_secret(secret_key: str) -> Object:
    """Return the Secret with the access key of the backup bucket."""
    return secret("vault", accessKeyID="teamkey", secretAccessKey=secret_key)


def server_with_backups(platform: Platform, kube: Kube, database: str) -> Server:
    """Create a server whose backup image has no pg_dump, and whose key has no access to the backup bucket."""
    platform.create_migrated_database(database, PASSWORD)
    kube.apply(secret("database", username=database, password=PASSWORD), backup_secret("wrong"))
    external = {
        "host": platform.postgres.host,
        "databaseName": database,
        "credentialsSecretRef": {"name": "database"},
        "tls": {"mode": "Require"},
    }
    backup_s3 = {
        "endpoint": platform.minio.endpoint,
        "bucket": BACKUP_BUCKET,
        "prefix": kube.namespace,
        "credentialsSecretRef": {"name": "vault"},
    }
    return Server(kube).apply(
        small_spec(
            database={"external": external},
            artifacts=platform.bucket_spec(kube, ARTIFACTS_BUCKET, prefix=kube.namespace),
            backup={"schedule": RARE_SCHEDULE, "image": kube.settings.pins["IMAGE_MLFLOW"], "s3": backup_s3},
        )
    )


def check_migration_requires_backup(faults: FaultExpectations, platform: Platform, database: str) -> None:
    """With an older schema revision, a migration is due, but it requires a backup."""
    server, set_revision = faults.server, "UPDATE alembic_version SET version_num = '{}'"
    before = server.pod()["metadata"]["uid"]
    platform.postgres.query(set_revision.format(SCHEMA_HEADS["3.14.0"]), database)
    server.trigger_reconcile()
    # a preflight Job, and then a backup Job
    faults.expect(
        "UpgradeReady", "BackupRequired", "no pg_dump", "backupBeforeMigration", within=timeouts.READY_SECONDS
    )
    server.wait_for("BackupReady", "False", "BackupFailed")
    assert server.pod()["metadata"]["uid"] == before
    server.wait_reachable()
    revision = platform.postgres.query("SELECT version_num FROM alembic_version", database).strip()
    assert revision == SCHEMA_HEADS["3.14.0"]
    platform.postgres.query(set_revision.format(SCHEMA_HEADS[DEFAULT_VERSION]), database)
    server.trigger_reconcile()
    server.wait_for("Ready", within=timeouts.RESYNC_SECONDS)


def check_backup_is_complete(server: Server, platform: Platform) -> None:
    """With an image that has pg_dump, the command of the message creates a complete backup."""
    assert "--from=cronjob/tracking-backup" in server.conditions()["BackupReady"]["message"]
    server.patch_spec(backup={"image": None})
    status = create_backup(server, "by-hand")
    folder = f"{server.kube.namespace}/mlflow-operator-backups/{server.kube.namespace}/tracking/{status['lastID']}/"
    assert status["lastURI"] == f"s3://{BACKUP_BUCKET}/{folder}".rstrip("/")
    client = platform.minio.client()
    objects = client.list_objects_v2(Bucket=BACKUP_BUCKET, Prefix=server.kube.namespace)["Contents"]
    assert {obj["Key"] for obj in objects} == {f"{folder}database.dump", f"{folder}manifest.json"}
    manifest = json.load(client.get_object(Bucket=BACKUP_BUCKET, Key=f"{folder}manifest.json")["Body"])
    dump = client.get_object(Bucket=BACKUP_BUCKET, Key=f"{folder}database.dump")["Body"].read()
    assert dump.startswith(b"PGDMP")
    assert manifest["sha256"] == hashlib.sha256(dump).hexdigest()
    assert manifest["sizeBytes"] == len(dump) == status["lastSizeBytes"]
    assert (manifest["mlflowVersion"], manifest["schemaRevision"]) == (
        DEFAULT_VERSION,
        SCHEMA_HEADS[DEFAULT_VERSION],
    )


def check_backup_survives_eviction(server: Server, platform: Platform, database: str) -> None:
    """A backup Job continues with a new pod when its pod is evicted, for example when a node is drained."""
    with pg_dump_blocked(platform.postgres, database) as unblock:

        def evict() -> None:
            evict_pod_of(server, "drained")
            unblock()

        status = create_backup(server, "drained", evict)

    def completed_job() -> Object | None:
        job = server.kube.require("Job", "drained")
        return job if job["status"].get("succeeded") else None

    job = eventually("the Job is complete", completed_job, timeouts.STATUS_SECONDS)
    assert not job["status"].get("failed")
    assert "lastFailureTime" not in status or status["lastFailureTime"] < job["metadata"]["creationTimestamp"]


@contextmanager
def pg_dump_blocked(postgres: Postgres, database: str) -> Iterator[Callable[[], None]]:
    """Block pg_dump by a lock on a table that the server and the operator do not read; yields a function that ends it.

    Otherwise the dump of a small database is complete before the evicted pod terminates.
    """
    psql = ("psql", "-v", "ON_ERROR_STOP=1", "-U", postgres.user, "-d", database, "-Atq")
    with subprocess.Popen(
        ["kubectl", "-n", postgres.kube.namespace, "exec", "-i", "postgres", "--", *psql],
        env=postgres.kube.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as session:  # fmt: skip
        assert session.stdin
        assert session.stdout
        session.stdin.write("BEGIN; LOCK TABLE input_tags; SELECT 'locked';\n")
        session.stdin.flush()
        assert session.stdout.readline() == "locked\n"
        yield session.stdin.close


def evict_pod_of(server: Server, job: str) -> None:
    """Evict the first pod of a Job, and wait for its next pod."""
    kube, pods = server.kube, {"batch.kubernetes.io/job-name": job}
    (first,) = eventually("the backup has a pod", lambda: kube.list("Pod", pods), timeouts.STATUS_SECONDS)
    kube.evict(first["metadata"]["name"])
    old = first["metadata"]["uid"]
    eventually(
        "the Job has another pod",
        lambda: {pod["metadata"]["uid"] for pod in kube.list("Pod", pods)} - {old},
        timeouts.ROLLOUT_SECONDS,
    )


def check_clients_cannot_access_backups(server: Server, platform: Platform) -> None:
    """Without `spec.backup.s3`, backups are in the artifact store, and the server denies clients access to them.

    The server's key is limited to its prefix of the bucket.
    """
    server.patch_spec(backup={"s3": None})
    status = create_backup(server, "by-hand-again")
    assert status["lastURI"].startswith(
        f"s3://{ARTIFACTS_BUCKET}/{server.kube.namespace}/mlflow-operator-backups/"
    )
    path = status["lastURI"].partition(f"/{server.kube.namespace}/")[2]
    artifacts = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    key = f"{server.kube.namespace}/{path}/manifest.json"
    assert requests.get(f"{artifacts}/{path}/manifest.json", timeout=30).status_code == 403
    assert requests.get(artifacts, params={"path": path}, timeout=30).status_code == 403
    assert requests.delete(f"{artifacts}/mlflow-operator-backups", timeout=30).status_code == 403
    assert requests.put(f"{artifacts}/{path}/manifest.json", data=b"{}", timeout=30).status_code == 403
    listed = requests.get(artifacts, timeout=30).json().get("files", [])
    assert "mlflow-operator-backups" not in {file["path"] for file in listed}
    content = platform.minio.client().get_object(Bucket=ARTIFACTS_BUCKET, Key=key)["Body"].read()
    assert json.loads(content)["id"] == status["lastID"]


def create_backup(server: Server, name: str, meanwhile: Callable[[], None] = lambda: None) -> Object:
    """Create a Job from the CronJob once it matches the spec, and call `meanwhile`; returns the new `status.backup`."""
    kube, before = server.kube, server.status.get("backup") or {}

    def is_up_to_date() -> bool:
        pod = kube.require("CronJob", "tracking-backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        spec = server.resource()["spec"]["backup"]
        env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        images = {container["name"]: container["image"] for container in pod["containers"]}
        bucket = BACKUP_BUCKET if spec.get("s3") else ARTIFACTS_BUCKET
        return bool(
            env["BACKUP_DESTINATION"].startswith(f"s3://{bucket}/") and images["pg-dump"] != images["backup"]
        )

    eventually("the CronJob matches the spec", is_up_to_date, timeouts.STATUS_SECONDS)
    kube.kubectl("create", "job", "--from=cronjob/tracking-backup", name)
    meanwhile()
    eventually(
        f"the status reports Job {name}",
        lambda: (server.status.get("backup") or {}).get("lastID") != before.get("lastID"),
        JOB_TIMEOUT_SECONDS,
    )
    server.wait_for("BackupReady")
    return dict(server.status["backup"])
