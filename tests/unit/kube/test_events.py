"""Events are published, and failures to publish them are not raised."""

import asyncio
import logging

import pytest

from mlflow_operator.kube.errors import Forbidden, NamespaceTerminating
from mlflow_operator.kube.events import MAX_MESSAGE_BYTES, Events
from mlflow_operator.kube.objects import Object

SERVER = {
    "apiVersion": "mlflow-operator.dev/v1alpha1",
    "kind": "MLflowServer",
    "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
}


class RecordingClient:
    """Kubernetes client that records created objects."""

    def __init__(self, error: Exception | None = None) -> None:
        self.created: list[Object] = []
        self.error = error

    async def create(self, obj: Object) -> Object:
        if self.error:
            raise self.error
        self.created.append(obj)
        return obj


async def publish_event(
    *, normal: bool = True, message: str = "The server is available.", server: Object = SERVER
) -> Object:
    cluster = RecordingClient()
    await Events(cluster, "pod-1").publish(server, normal, "Ready", message)  # type: ignore[arg-type]
    [event] = cluster.created
    return event


async def test_event_about_a_cluster_scoped_object_is_in_the_namespace_default() -> None:
    """The API server rejects it in any other namespace."""
    metadata = {"name": "shared", "uid": "u", "resourceVersion": "7"}
    event = await publish_event(server={**SERVER, "kind": "MLflowPlatform", "metadata": metadata})
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


async def test_event_is_found_by_kubectl_describe() -> None:
    """kubectl describe selects Events by name, namespace and uid of the involved object."""
    event = await publish_event()
    assert event["involvedObject"] == {
        "apiVersion": "mlflow-operator.dev/v1alpha1",
        "kind": "MLflowServer",
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert event["metadata"]["namespace"] == "ns"
    assert (event["type"], event["reason"], event["message"]) == (
        "Normal",
        "Ready",
        "The server is available.",
    )
    assert (event["reportingComponent"], event["reportingInstance"]) == ("mlflow-operator", "pod-1")


async def test_failure_has_type_warning() -> None:
    assert (await publish_event(normal=False))["type"] == "Warning"


async def test_names_are_unique_and_within_length_limit() -> None:
    long = {**SERVER, "metadata": {**SERVER["metadata"], "name": "a" * 253}}  # type: ignore[dict-item]
    names = {
        event["metadata"]["name"]
        for event in await asyncio.gather(*(publish_event(server=long) for _ in range(5)))
    }
    assert len(names) == 5
    assert max(len(name) for name in names) <= 253


@pytest.mark.parametrize("character", ["x", "ü", "🙂"])
async def test_long_message_is_truncated_to_api_limit(character: str) -> None:
    message = (await publish_event(message=character * 2000))["message"]
    assert MAX_MESSAGE_BYTES - 10 < len(message.encode()) <= MAX_MESSAGE_BYTES
    assert message.endswith(f"{character}…")


async def test_rejected_event_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    cluster = RecordingClient(Forbidden("create Event ns/a: 403"))
    await Events(cluster).publish(SERVER, True, "Ready", "x")  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_event_in_terminating_namespace_is_not_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The deletion of a namespace is no failure, so the log must not contain a warning."""
    cluster = RecordingClient(NamespaceTerminating("create Event ns/a: 403"))
    await Events(cluster).publish(SERVER, True, "Ready", "x")  # type: ignore[arg-type]
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
