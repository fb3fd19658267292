"""An S3 store that answers slowly holds nobody up."""

import threading

import pytest

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import NotReady
from mlflow_operator.providers import s3
from mlflow_operator.providers.s3 import Bucket, ObjectStores

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
        with pytest.raises(NotReady) as refusal:
            await stores.ensure(BUCKET, create=True)
    finally:
        free.set()
        stores.close()
    assert refusal.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert "does not answer" in refusal.value.message
