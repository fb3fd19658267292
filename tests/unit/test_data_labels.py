"""No GitOps tool takes volumes and generated credentials for its own objects, and prunes them."""

from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import Forbidden
from tests.unit.simulation import EXTERNAL, NAME, URI, SimulatedCluster

DATA = (
    ("PersistentVolumeClaim", "a-postgres-data"),
    ("PersistentVolumeClaim", "a-artifacts-data"),
    ("Secret", "a-database"),
    ("Secret", "a-artifacts"),
)
MARKS: Any = {
    "labels": {
        "app.kubernetes.io/instance": "a",
        "argocd.argoproj.io/instance": "a",
        "kustomize.toolkit.fluxcd.io/name": "servers",
        "helm.toolkit.fluxcd.io/name": "servers",
    },
    "annotations": {
        "argocd.argoproj.io/tracking-id": "a:mlflow-operator.dev/MLflowServer:team/a",
        "meta.helm.sh/release-name": "a",
    },
}
"""What Argo CD, Flux and Helm write to objects that they deploy."""


def data_labels(simulation: SimulatedCluster) -> list[dict[str, str]]:
    """The labels of the data objects."""
    return [simulation.api.objects[key]["metadata"]["labels"] for key in DATA]


def set_instance_labels(simulation: SimulatedCluster) -> None:
    """Set the label that earlier versions of the operator set."""
    for kind, name in DATA:
        simulation.api.edit(kind, name, lambda obj: obj["metadata"]["labels"].update({labels.INSTANCE: "a"}))


async def test_data_has_no_mark_of_a_gitops_tool() -> None:
    """Neither those of the MLflowServer nor those of the pods are copied. A tool would prune the data."""
    simulation = SimulatedCluster({"podTemplate": {"metadata": MARKS}})
    simulation.api.edit(api.KIND, NAME, lambda obj: obj["metadata"].update(MARKS))
    await simulation.reconcile_until_ready()
    for kind, name in DATA:
        metadata = simulation.api.objects[kind, name]["metadata"]
        assert set(metadata["labels"]) == {labels.NAME, labels.COMPONENT, labels.MANAGED_BY, labels.SERVER}
        assert not metadata.get("annotations")


async def test_data_of_an_earlier_version_loses_the_instance_label_once(
    ready_server: SimulatedCluster,
) -> None:
    """A stable server causes no writes afterwards, and the data is not changed."""
    before = {key: ready_server.api.objects[key].get("data") for key in DATA}
    set_instance_labels(ready_server)
    writes = len(ready_server.api.writes)
    await ready_server.reconcile()
    assert not any(labels.INSTANCE in found for found in data_labels(ready_server))
    assert {key: ready_server.api.objects[key].get("data") for key in DATA} == before
    assert sorted(ready_server.api.writes[writes:]) == sorted(
        ("patch", f"{kind}/{name}") for kind, name in DATA
    )
    writes = len(ready_server.api.writes)
    await ready_server.reconcile_until_ready()
    assert len(ready_server.api.writes) == writes


async def test_data_that_the_spec_no_longer_uses_loses_the_instance_label(
    ready_server: SimulatedCluster,
) -> None:
    """It is kept after a switch to other stores, and nothing else writes it."""
    ready_server.put_secret("db", uri=URI.format(host="two"))
    ready_server.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    ready_server.update_spec(storageChangePolicy="Allow", **EXTERNAL)
    await ready_server.reconcile_until_ready()
    set_instance_labels(ready_server)
    await ready_server.reconcile()
    assert not any(labels.INSTANCE in found for found in data_labels(ready_server))


async def test_rejected_removal_of_the_label_does_not_stop_the_server(
    ready_server: SimulatedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """An admission policy may require the label."""
    set_instance_labels(ready_server)
    ready_server.api.errors_by_kind["PersistentVolumeClaim"] = Forbidden("patch: 403 denied the request")
    await ready_server.reconcile()
    assert ready_server.condition("Ready")[0] == "True"
    assert "denied the request" in caplog.text
