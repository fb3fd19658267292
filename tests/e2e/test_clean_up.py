"""What was deleted long ago goes for good: out of the database, and out of the bucket."""

import mlflow
import pytest

from tests.e2e import stores, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.scientist import KIB, Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.stores import MinIO, secret

BUCKET = "cleaned"


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


def keys(minio: MinIO) -> list[str]:
    """All that is in the bucket."""
    pages = minio.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
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


def direct(scientist: Scientist) -> str | None:
    """A new run, if clients write its files into the bucket themselves."""
    run = scientist.run()
    place = str(scientist.client.get_run(run).info.artifact_uri)
    return run if place.startswith("s3://") else None


def test_what_was_deleted_goes_for_good(ns: Kube, other_ns: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run lists it and touches nothing; then it goes, files included, by whichever way clients reach them."""
    minio = stores.minio(other_ns, None)
    ns.apply(secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    s3 = {
        "endpoint": minio.endpoint,
        "bucket": BUCKET,
        "addressingStyle": "Path",
        "credentialsSecretRef": {"name": "minio"},
    }
    asked = {"olderThan": "0s", "traces": {"olderThan": "0s"}, "mode": "DryRun"}
    server = Server(ns).apply(small(artifacts={"s3": s3}, garbageCollection=asked)).ready()
    scientist = Scientist(server.url)
    work = scientist.work()
    run = scientist.run()
    experiment = scientist.client.get_run(run).info.experiment_id
    scientist.upload(run, "file.bin", 64 * KIB)
    traced = trace(scientist, experiment)
    scientist.client.delete_run(run)
    before = keys(minio)
    assert any(run in key for key in before)

    told = clean(server, "look")
    assert (told["mode"], told["deletedRuns"], told["deletedTraces"]) == ("DryRun", 0, 0)
    log = ns.kubectl("logs", "job/look")
    assert f"would remove run {run}" in log
    assert f"would remove trace {traced}" in log
    assert keys(minio) == before
    assert traces(scientist, experiment) == {traced}

    server.change(garbageCollection={"mode": "Delete"})
    server.until("GarbageCollectionReady", within=timeouts.SETTLED)
    told = clean(server, "now")
    assert (told["mode"], told["deletedRuns"], told["deletedTraces"]) == ("Delete", 1, 1)
    assert not any(run in key for key in keys(minio))
    assert not traces(scientist, experiment)
    scientist.finds(work)
    events = ns.kubectl(
        "get", "events", "--field-selector=reason=GarbageCollected", "-o", "jsonpath={..message}"
    )
    assert "Removed for good: 1 run, 0 models, 0 experiments and 1 trace." in events

    server.change(artifacts={"access": "Direct"}, storageChangePolicy="Allow")
    server.ready()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", minio.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", minio.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", minio.secret_key)
    # until the pod of before has said goodbye, new experiments are of its kind
    run = eventually("a run's files go straight to the store", lambda: direct(scientist), timeouts.ROLLED)
    info = scientist.client.get_run(run).info
    scientist.upload(run, "file.bin", 64 * KIB)
    scientist.client.delete_experiment(info.experiment_id)
    told = clean(server, "direct")
    assert (told["deletedRuns"], told["deletedExperiments"]) == (1, 1)
    assert not any(run in key for key in keys(minio))
    scientist.finds(work)
