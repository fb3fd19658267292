"""Another image for a running server: it rolls out without a failed request, or does not affect the server."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.cluster import operator_image, registry
from tests.e2e import timeouts
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.load import SteadyLoad
from tests.e2e.server import Server, eventually
from tests.e2e.test_upgrade import deployment_image, jobs

GROUP = "shared"


@contextmanager
def unaffected(server: Server) -> Iterator[None]:
    """The pod keeps serving while the spec's image is unusable, and reverting the change is enough."""
    pod = server.pod()["metadata"]["uid"]
    upgrade = server.status.get("upgrade")
    try:
        yield
        assert server.conditions()["ServerAvailable"]["status"] == "True"
        server.wait_reachable()
    finally:
        server.patch_spec(version=None, image=None)
        server.wait_ready()
    assert server.pod()["metadata"]["uid"] == pod
    eventually("no preflight is left", lambda: not jobs(server, "preflight"), timeouts.RESYNC_SECONDS)
    assert server.status.get("upgrade") == upgrade


def test_image_without_mlflow_does_not_affect_the_server(shared_server: Server) -> None:
    """The preflight Job runs the image and reports the missing package."""
    with unaffected(shared_server):
        shared_server.patch_spec(
            image=operator_image.reference(shared_server.kube.settings, shared_server.kube.shell)
        )
        FaultExpectations(shared_server).expect(
            "UpgradeReady",
            "PreflightFailed",
            "lacks a Python package: ",
            f"version {DEFAULT_VERSION} keeps running",
            within=timeouts.READY_SECONDS,
        )


def test_image_that_cannot_be_pulled_does_not_affect_the_server(shared_server: Server) -> None:
    """For example because of a typo in the tag."""
    with unaffected(shared_server):
        shared_server.patch_spec(image="mirror.test:5000/team/mlflow:v3.17.2-full")
        shared_server.wait_for("Ready", "False", "ImagePullFailed", within=timeouts.RESYNC_SECONDS)


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs an earlier version's image; tests/unit/components/upgrade/test_reconcile.py simulates it"
)
def test_image_older_than_schema_does_not_affect_the_server(
    shared_server: Server, earlier_images: dict[str, str]
) -> None:
    """The image does not know the database's schema revision."""
    with unaffected(shared_server):
        shared_server.patch_spec(version="3.16.1", image=earlier_images["3.16.1"])
        condition = shared_server.wait_for(
            "UpgradeReady", "False", "SchemaNewerThanImage", within=timeouts.READY_SECONDS
        )
        assert f"revert to version {DEFAULT_VERSION}" in condition["message"]


def test_image_with_same_schema_rolls_out_without_failed_requests(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same version, pinned by its digest: the preflight accepts it, and the Deployment rolls out; then back."""
    kube = shared_server.kube
    tagged = kube.settings.pins["IMAGE_MLFLOW"]
    pinned = f"{tagged.rpartition(':')[0]}@{registry.digest(kube.shell, tagged)}"
    migrations = len(jobs(shared_server, "migration"))
    old = shared_server.pod()
    with SteadyLoad(shared_server.url, monkeypatch) as steady_load:
        shared_server.patch_spec(image=pinned)
        shared_server.wait_replaced("server", old)
        shared_server.wait_ready()
    assert steady_load.errors == []
    assert steady_load.succeeded > 50
    assert deployment_image(shared_server) == pinned
    upgrade_status = shared_server.status["upgrade"]
    assert (upgrade_status["toRevision"], upgrade_status["downtimeSeconds"]) == (
        upgrade_status["fromRevision"],
        0,
    )
    assert len(jobs(shared_server, "migration")) == migrations
    shared_server.patch_spec(image=None)
    shared_server.wait_ready(timeouts.READY_SECONDS)
    assert deployment_image(shared_server) == tagged
