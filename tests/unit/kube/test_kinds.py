"""Kinds know their addresses."""

import pytest

from mlflow_operator.kube import kinds


def test_core_and_group_kinds_live_under_different_roots() -> None:
    assert kinds.SECRET.path("ns", "a") == "/api/v1/namespaces/ns/secrets/a"
    assert kinds.DEPLOYMENT.path("ns", "a") == "/apis/apps/v1/namespaces/ns/deployments/a"


def test_collections_subresources_and_cluster_scoped_kinds() -> None:
    assert kinds.POD.path() == "/api/v1/pods"
    assert kinds.MLFLOWSERVER.path("ns", "a", "status").endswith("/namespaces/ns/mlflowservers/a/status")
    assert kinds.Kind("v1", "Node", "nodes", namespaced=False).path("ignored", "n1") == "/api/v1/nodes/n1"


def test_an_address_that_would_mean_something_else_is_refused() -> None:
    """Without a namespace, the path of one Secret would be that of a Secret in no namespace at all."""
    with pytest.raises(ValueError, match="needs a namespace"):
        kinds.SECRET.path(None, "a")
    with pytest.raises(ValueError, match="status of which"):
        kinds.MLFLOWSERVER.path("ns", None, "status")


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.kind)
def test_each_kind_is_found_by_its_objects(kind: kinds.Kind) -> None:
    assert kinds.of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind
