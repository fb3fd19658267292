"""Another image for a server that serves: it takes over without a failed request, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.cluster import operator_image, registry
from tests.e2e import timeouts
from tests.e2e.load import Steady
from tests.e2e.server import Server, eventually
from tests.e2e.test_upgrade import image, jobs

GROUP = "shared"


@contextmanager
def untouched(server: Server) -> Iterator[None]:
    """The pod serves while something is wrong with the image of the spec, and undoing the change is enough."""
    pod = server.pod()["metadata"]["uid"]
    upgrade = server.status.get("upgrade")
    try:
        yield
        assert server.conditions()["ServerAvailable"]["status"] == "True"
        server.answers()
    finally:
        server.change(version=None, image=None)
        server.ready()
    assert server.pod()["metadata"]["uid"] == pod
    eventually("no preflight is left", lambda: not jobs(server, "preflight"), timeouts.NOTICED)
    assert server.status.get("upgrade") == upgrade


def test_an_image_without_mlflow_leaves_the_server_untouched(shared: Server) -> None:
    """The preflight Job runs in it and finds out what it lacks."""
    with untouched(shared):
        shared.change(image=operator_image.reference(shared.kube.settings, shared.kube.shell))
        condition = shared.until("UpgradeReady", "False", "PreflightFailed", within=timeouts.READY)
        assert "lacks a Python package: " in condition["message"]
        assert f"version {DEFAULT_VERSION} serves on" in condition["message"]


def test_an_image_that_cannot_be_pulled_leaves_the_server_untouched(shared: Server) -> None:
    """A mistyped tag, say."""
    with untouched(shared):
        shared.change(image="mirror.test:5000/team/mlflow:v3.17.2-full")
        shared.until("Ready", "False", "ImagePullFailed", within=timeouts.NOTICED)


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs an earlier version's image; tests/unit/components/migration/test_reconcile.py plays it"
)
def test_an_image_older_than_the_schema_leaves_the_server_untouched(
    shared: Server, earlier: dict[str, str]
) -> None:
    """It does not know the tables."""
    with untouched(shared):
        shared.change(version="3.16.1", image=earlier["3.16.1"])
        condition = shared.until("UpgradeReady", "False", "SchemaNewerThanImage", within=timeouts.READY)
        assert f"go back to version {DEFAULT_VERSION}" in condition["message"]


def test_no_request_fails_when_an_image_with_the_same_schema_takes_over(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same version by another reference, pinned by its digest: asked, then rolled; and back."""
    kube = shared.kube
    tagged = kube.settings.pins["IMAGE_MLFLOW"]
    pinned = f"{tagged.rpartition(':')[0]}@{registry.digest(kube.shell, tagged)}"
    migrations = len(jobs(shared, "migration"))
    old = shared.pod()
    with Steady(shared.url, monkeypatch) as clients:
        shared.change(image=pinned)
        shared.replaced("server", old)
        shared.ready()
    assert clients.errors == []
    assert clients.done > 50
    assert image(shared) == pinned
    told = shared.status["upgrade"]
    assert (told["toRevision"], told["downtimeSeconds"]) == (told["fromRevision"], 0)
    assert len(jobs(shared, "migration")) == migrations
    shared.change(image=None)
    shared.ready(timeouts.READY)
    assert image(shared) == tagged
