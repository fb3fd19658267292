"""API paths of kinds."""

import pytest

from mlflow_operator.kube import kinds


def test_core_and_named_groups_have_different_roots() -> None:
    assert kinds.SECRET.path("ns", "a") == "/api/v1/namespaces/ns/secrets/a"
    assert kinds.DEPLOYMENT.path("ns", "a") == "/apis/apps/v1/namespaces/ns/deployments/a"


def test_paths_of_collections_subresources_and_cluster_scoped_kinds() -> None:
    assert kinds.POD.path() == "/api/v1/pods"
    assert kinds.MLFLOWSERVER.path("ns", "a", "status").endswith("/namespaces/ns/mlflowservers/a/status")
    assert kinds.Kind("v1", "Node", "nodes", namespaced=False).path("ignored", "n1") == "/api/v1/nodes/n1"


def test_incomplete_path_raises() -> None:
    """Without a namespace the path of a Secret would be that of a cluster-scoped object."""
    with pytest.raises(ValueError, match="needs a namespace"):
        kinds.SECRET.path(None, "a")
    with pytest.raises(ValueError, match="needs a name"):
        kinds.MLFLOWSERVER.path("ns", None, "status")


@pytest.mark.parametrize(("namespace", "name"), [("ns", "../a"), ("..", "a"), ("ns", "a?b"), ("ns", "a/b")])
def test_invalid_name_in_a_path_raises(namespace: str, name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid name"):
        kinds.SECRET.path(namespace, name)


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.kind)
def test_of_returns_kind_of_object(kind: kinds.Kind) -> None:
    assert kinds.of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind
