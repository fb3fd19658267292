"""Garbage collection: what was deleted long ago is permanently removed from the database and from the bucket."""

from typing import Any

import mlflow
import pytest

from tests.e2e import timeouts
from tests.e2e.external_stores import MinIO, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import KIB, Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform


def collect_garbage(server: Server, name: str) -> Object:
    """Start a garbage collection by `kubectl create job`, as documented; returns the new `status.garbageCollection`."""
    before = server.status.get("garbageCollection") or {}
    cronjob = server.names.garbage_collection
    server.kube.kubectl("create", "job", f"--from=cronjob/{cronjob}", name)

    def new_status() -> Object | None:
        status: Object = server.status.get("garbageCollection") or {}
        return status if status.get("lastRunTime") != before.get("lastRunTime") else None

    result: Object = eventually(f"the status reports Job {name}", new_status, timeouts.READY_SECONDS)
    server.wait_for("GarbageCollectionReady", within=timeouts.STATUS_SECONDS)
    return result


def object_keys(minio: MinIO, bucket: str) -> list[str]:
    """Return the keys of all objects in the bucket."""
    pages = minio.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [obj["Key"] for page in pages for obj in page.get("Contents", [])]


def log_trace(workload: Workload, experiment: str) -> str:
    """Log a trace; returns its id."""
    mlflow.set_tracking_uri(workload.url)
    span = workload.client.start_trace("asked", experiment_id=experiment)
    workload.client.end_trace(span.trace_id)
    mlflow.flush_trace_async_logging()
    return str(span.trace_id)


def trace_ids(workload: Workload, experiment: str) -> set[str]:
    """Return the ids of all traces."""
    found = workload.client.search_traces([experiment], include_spans=False)
    return {trace.info.trace_id for trace in found}


def server_on_platform(kube: Kube, platform: Platform, bucket: str, **spec: Any) -> Server:
    """Create a server on the platform's stores, in a bucket that the test can read."""
    minio = platform.minio
    kube.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3 = {
        "endpoint": minio.endpoint,
        "bucket": bucket,
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    artifacts = {"s3": s3, **spec.pop("artifacts", {})}
    database = platform.stores_spec(kube)["database"]
    return Server(kube).apply(small_spec(database=database, artifacts=artifacts, **spec)).wait_ready()


def test_deleted_runs_and_old_traces_are_deleted_with_artifacts(ns: Kube, platform: Platform) -> None:
    """A dry run lists them and deletes nothing; then they are deleted, and an Event reports how many."""
    minio, bucket = platform.minio, f"cleaned-{ns.namespace}"
    spec_options = {"olderThan": "0s", "traces": {"olderThan": "0s"}, "mode": "DryRun"}
    server = server_on_platform(ns, platform, bucket, garbageCollection=spec_options)
    workload = Workload(server.url)
    data = workload.log_data()
    run = workload.create_run()
    experiment = workload.client.get_run(run).info.experiment_id
    workload.upload(run, "file.bin", 64 * KIB)
    trace_id = log_trace(workload, experiment)
    workload.client.delete_run(run)
    before = object_keys(minio, bucket)
    assert any(run in key for key in before)

    status = collect_garbage(server, "dry-run")
    assert (status["mode"], status["deletedRuns"], status["deletedTraces"]) == ("DryRun", 0, 0)
    log = ns.kubectl("logs", "job/dry-run")
    assert f"would delete run {run}" in log
    assert f"would delete trace {trace_id}" in log
    assert object_keys(minio, bucket) == before
    assert trace_ids(workload, experiment) == {trace_id}

    server.patch_spec(garbageCollection={"mode": "Delete"})
    server.wait_for("GarbageCollectionReady", within=timeouts.STATUS_SECONDS)
    status = collect_garbage(server, "now")
    assert (status["mode"], status["deletedRuns"], status["deletedTraces"]) == ("Delete", 1, 1)
    assert not any(run in key for key in object_keys(minio, bucket))
    assert not trace_ids(workload, experiment)
    workload.check_data(data)
    # The operator publishes the Event after it has written the status.
    get_messages = ("get", "events", "--field-selector=reason=GarbageCollected", "-o", "jsonpath={..message}")
    message = "Permanently deleted: 1 run, 0 models, 0 experiments and 1 trace."
    eventually(
        f"an Event reports: {message}",
        lambda: message in ns.kubectl(*get_messages),
        timeouts.STATUS_SECONDS,
    )


@pytest.mark.long_running(
    reason="a second server; tests/unit/pod_scripts/test_garbage_collection.py deletes artifacts with s3:// URIs"
)
def test_artifacts_of_direct_access_are_deleted_with_experiment(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Direct access, artifact URIs begin with s3://."""
    minio, bucket = platform.minio, f"direct-{ns.namespace}"
    settings = {"olderThan": "0s", "mode": "Delete"}
    server = server_on_platform(
        ns, platform, bucket, garbageCollection=settings, artifacts={"access": "Direct"}
    )
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", minio.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    workload = Workload(server.url)
    data, run = workload.log_data(), workload.create_run()
    info = workload.client.get_run(run).info
    assert str(info.artifact_uri).startswith("s3://")
    workload.upload(run, "file.bin", 64 * KIB)
    workload.client.delete_experiment(info.experiment_id)
    status = collect_garbage(server, "direct")
    assert (status["deletedRuns"], status["deletedExperiments"]) == (1, 1)
    assert not any(run in key for key in object_keys(minio, bucket))
    workload.check_data(data)
