"""An operator that watches some namespaces, with rights in those namespaces only."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.integration.conftest import Operators
from tests.integration.postgres import Postgres
from tests.integration.server import Server, eventually, external


def test_operator_of_one_namespace_works_without_rights_elsewhere(
    operators: Operators, admin: Client, postgres: Postgres, namespace: str, other_namespace: str
) -> None:
    """With the chart's Roles for `watchNamespaces`: its namespace is served, another one is not touched.

    That these Roles grant nothing elsewhere is tested in tests/apiserver/test_rbac.py.
    """
    values = {"fullnameOverride": "namespaced", "watchNamespaces": [namespace]}
    installed = chart_rbac.install(admin, values, ("Role", "Binding", "ServiceAccount"))
    assert not any("clusterrole" in path for path in installed)
    operator = operators.start(values)
    eventually("the operator leads", operator.leads)

    elsewhere = Server(admin, other_namespace).apply(external(admin, other_namespace, postgres))
    spec = external(admin, namespace, postgres, deletionPolicy="Delete")
    server = Server(admin, namespace).apply(spec).ready()
    assert server.stored()["metadata"]["finalizers"] == [labels.FINALIZER]
    admin.delete(kinds.SERVICE, namespace, server.names.service)
    eventually("a deleted object is created again", lambda: server.get(kinds.SERVICE, server.names.service))
    server.delete()
    eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, server.name) is None)

    assert _secrets(elsewhere) == {"postgres"}
    assert "status" not in elsewhere.stored()
    assert operator.complaints() == []


def _secrets(server: Server) -> set[str]:
    found: list[Object] = server.objects(kinds.SECRET)
    return {obj["metadata"]["name"] for obj in found}
