"""A slow S3 store does not block the operator, and buckets share clients."""

import threading
from dataclasses import replace

import pytest

from mlflow_operator.clients.s3 import client as s3
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError

BUCKET = Bucket(
    "http://127.0.0.1:1", "us-east-1", "models", "path", "key", "hunter2", None, "spec.artifacts.s3"
)


async def test_call_times_out_while_its_thread_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS lookup that takes a minute cannot be cancelled; the reconcile must continue without it."""
    release = threading.Event()
    monkeypatch.setattr(s3, "_CALL_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(ObjectStores, "_ensure_bucket", lambda *_: release.wait(10))
    stores = ObjectStores()
    try:
        with pytest.raises(TransientError) as error:
            await stores.ensure_bucket(BUCKET, create=True)
    finally:
        release.set()
        stores.close()
    assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert "does not answer" in error.value.message


def test_buckets_with_the_same_key_share_a_client() -> None:
    """Each client needs memory and a connection; an administrator's key is used for the buckets of all servers."""
    stores = ObjectStores()
    try:
        client = stores._client(BUCKET)
        assert stores._client(replace(BUCKET, name="plots", prefix="team-b", field="other")) is client
        assert stores._client(replace(BUCKET, secret_key="hunter3")) is not client
    finally:
        stores.close()
