"""What was deleted long ago goes for good: out of the database, and out of the bucket."""

from typing import Any

import mlflow
import pytest

from tests.e2e import timeouts
from tests.e2e.external_stores import MinIO, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import KIB, Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform


def clean(server: Server, name: str) -> Object:
    """Begins a round by hand, as the documentation says; gives what the status says of it."""
    before = server.status.get("garbageCollection") or {}
    cronjob = server.names.garbage_collection
    server.kube.kubectl("create", "job", f"--from=cronjob/{cronjob}", name)

    def said() -> Object | None:
        told: Object = server.status.get("garbageCollection") or {}
        return told if told.get("lastRunTime") != before.get("lastRunTime") else None

    found: Object = eventually(f"the round {name} is over", said, timeouts.READY)
    server.until("GarbageCollectionReady", within=timeouts.SETTLED)
    return found


def keys(minio: MinIO, bucket: str) -> list[str]:
    """All that is in the bucket."""
    pages = minio.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def trace(scientist: Scientist, experiment: str) -> str:
    """The id of a trace."""
    mlflow.set_tracking_uri(scientist.url)
    span = scientist.client.start_trace("asked", experiment_id=experiment)
    scientist.client.end_trace(span.trace_id)
    mlflow.flush_trace_async_logging()
    return str(span.trace_id)


def traces(scientist: Scientist, experiment: str) -> set[str]:
    """Ids of those that there are."""
    found = scientist.client.search_traces([experiment], include_spans=False)
    return {each.info.trace_id for each in found}


def on_platform(kube: Kube, platform: Platform, bucket: str, **spec: Any) -> Server:
    """A server on the platform's stores, in a bucket that a test can look into."""
    minio = platform.minio
    kube.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3 = {
        "endpoint": minio.endpoint,
        "bucket": bucket,
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    artifacts = {"s3": s3, **spec.pop("artifacts", {})}
    database = platform.stores(kube)["database"]
    return Server(kube).apply(small(database=database, artifacts=artifacts, **spec)).ready()


def test_deleted_runs_and_old_traces_are_removed_with_their_files(ns: Kube, platform: Platform) -> None:
    """A dry run lists them and removes nothing; then they are removed, and an Event tells how many."""
    minio, bucket = platform.minio, f"cleaned-{ns.namespace}"
    asked = {"olderThan": "0s", "traces": {"olderThan": "0s"}, "mode": "DryRun"}
    server = on_platform(ns, platform, bucket, garbageCollection=asked)
    scientist = Scientist(server.url)
    work = scientist.work()
    run = scientist.run()
    experiment = scientist.client.get_run(run).info.experiment_id
    scientist.upload(run, "file.bin", 64 * KIB)
    traced = trace(scientist, experiment)
    scientist.client.delete_run(run)
    before = keys(minio, bucket)
    assert any(run in key for key in before)

    told = clean(server, "look")
    assert (told["mode"], told["deletedRuns"], told["deletedTraces"]) == ("DryRun", 0, 0)
    log = ns.kubectl("logs", "job/look")
    assert f"would remove run {run}" in log
    assert f"would remove trace {traced}" in log
    assert keys(minio, bucket) == before
    assert traces(scientist, experiment) == {traced}

    server.change(garbageCollection={"mode": "Delete"})
    server.until("GarbageCollectionReady", within=timeouts.SETTLED)
    told = clean(server, "now")
    assert (told["mode"], told["deletedRuns"], told["deletedTraces"]) == ("Delete", 1, 1)
    assert not any(run in key for key in keys(minio, bucket))
    assert not traces(scientist, experiment)
    scientist.finds(work)
    events = ns.kubectl(
        "get", "events", "--field-selector=reason=GarbageCollected", "-o", "jsonpath={..message}"
    )
    assert "Removed for good: 1 run, 0 models, 0 experiments and 1 trace." in events


@pytest.mark.long_running(
    reason="a second server; tests/unit/pod_scripts/test_garbage_collection.py removes artifacts with s3:// URIs"
)
def test_files_that_clients_wrote_into_the_store_are_removed_with_their_experiment(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Direct access: their URIs begin with s3://."""
    minio, bucket = platform.minio, f"direct-{ns.namespace}"
    collection = {"olderThan": "0s", "mode": "Delete"}
    server = on_platform(ns, platform, bucket, garbageCollection=collection, artifacts={"access": "Direct"})
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", minio.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    scientist = Scientist(server.url)
    work, run = scientist.work(), scientist.run()
    info = scientist.client.get_run(run).info
    assert str(info.artifact_uri).startswith("s3://")
    scientist.upload(run, "file.bin", 64 * KIB)
    scientist.client.delete_experiment(info.experiment_id)
    told = clean(server, "direct")
    assert (told["deletedRuns"], told["deletedExperiments"]) == (1, 1)
    assert not any(run in key for key in keys(minio, bucket))
    scientist.finds(work)
