"""An S3 store that answers slowly holds nobody up."""

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


async def test_a_look_ends_in_time_though_its_thread_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that takes a minute to resolve can't be cancelled; the reconcile must go on without it."""
    free = threading.Event()
    monkeypatch.setattr(s3, "_CALL_SECONDS", 0.01)
    monkeypatch.setattr(ObjectStores, "_ensure", lambda *_: free.wait(10))
    stores = ObjectStores()
    try:
        with pytest.raises(TransientError) as refusal:
            await stores.ensure_bucket(BUCKET, create=True)
    finally:
        free.set()
        stores.close()
    assert refusal.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert "does not answer" in refusal.value.message


def test_servers_that_use_one_key_share_a_client() -> None:
    """Each keeps some memory and a connection; an administrator looks at the places of a whole platform."""
    stores = ObjectStores()
    try:
        one = stores._client(BUCKET)
        assert stores._client(replace(BUCKET, name="plots", prefix="team-b", field="elsewhere")) is one
        assert stores._client(replace(BUCKET, secret_key="hunter3")) is not one
    finally:
        stores.close()
