"""Events reach the user, and never stand in the way."""

import asyncio
import logging

import pytest

from mlflow_operator.kube.errors import Forbidden, NamespaceTerminating
from mlflow_operator.kube.events import MAX_MESSAGE_CHARS, Events
from mlflow_operator.kube.objects import Object

SERVER = {
    "apiVersion": "mlflow-operator.dev/v1alpha1",
    "kind": "MLflowServer",
    "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
}


class Taken:
    """A cluster that keeps what is created."""

    def __init__(self, error: Exception | None = None) -> None:
        self.created: list[Object] = []
        self.error = error

    async def create(self, obj: Object) -> Object:
        if self.error:
            raise self.error
        self.created.append(obj)
        return obj


async def published(*, normal: bool = True, message: str = "All is well.", server: Object = SERVER) -> Object:
    cluster = Taken()
    await Events(cluster, "pod-1").publish(server, normal, "Ready", message)  # type: ignore[arg-type]
    [event] = cluster.created
    return event


async def test_an_event_is_found_by_kubectl_describe() -> None:
    """That looks for the involved object's name, namespace and uid."""
    event = await published()
    assert event["involvedObject"] == {
        "apiVersion": "mlflow-operator.dev/v1alpha1",
        "kind": "MLflowServer",
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert event["metadata"]["namespace"] == "ns"
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Ready", "All is well.")
    assert (event["reportingComponent"], event["reportingInstance"]) == ("mlflow-operator", "pod-1")


async def test_what_is_wrong_is_a_warning() -> None:
    assert (await published(normal=False))["type"] == "Warning"


async def test_names_are_unlike_and_not_too_long() -> None:
    long = {**SERVER, "metadata": {**SERVER["metadata"], "name": "a" * 253}}  # type: ignore[dict-item]
    names = {
        event["metadata"]["name"]
        for event in await asyncio.gather(*(published(server=long) for _ in range(5)))
    }
    assert len(names) == 5
    assert max(len(name) for name in names) <= 253


@pytest.mark.parametrize("letter", ["x", "ü", "🙂"])
async def test_a_long_message_is_cut_to_what_the_api_server_takes(letter: str) -> None:
    message = (await published(message=letter * 2000))["message"]
    assert MAX_MESSAGE_CHARS - 10 < len(message.encode()) <= MAX_MESSAGE_CHARS
    assert message.endswith(f"{letter}…")


async def test_a_refused_event_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Taken(Forbidden("create Event ns/a: 403"))
    await Events(cluster).publish(SERVER, True, "Ready", "x")  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_who_goes_with_the_whole_namespace_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever deletes a namespace looks for what went wrong in the log, and nothing did."""
    cluster = Taken(NamespaceTerminating("create Event ns/a: 403"))
    await Events(cluster).publish(SERVER, True, "Ready", "x")  # type: ignore[arg-type]
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
