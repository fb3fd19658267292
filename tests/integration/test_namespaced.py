"""An operator that only watches some namespaces, with permissions only in those namespaces."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.integration.conftest import Operators
from tests.integration.postgres import Postgres
from tests.integration.server import Server, external_spec
from tests.polling import eventually


def test_namespaced_operator_works_with_namespaced_permissions(
    operators: Operators, admin: Client, postgres: Postgres, namespace: str, other_namespace: str
) -> None:
    """With the chart's Roles and policy for `watchNamespaces`, the operator only reconciles servers in its namespace.

    tests/apiserver/test_rbac.py tests that these Roles grant nothing in other namespaces.
    """
    values = {"fullnameOverride": "namespaced", "watchNamespaces": [namespace]}
    installed = chart_rbac.install(admin, values, chart_rbac.ALL)
    cluster_roles = {path.rpartition("/")[2] for path in installed if "clusterrole" in path}
    assert cluster_roles == {f"namespaced-{OPERATOR_NAMESPACE}-platforms"}
    operator = operators.start(values)
    eventually("the operator leads", operator.is_leader)

    other_server = Server(admin, other_namespace).apply(external_spec(admin, other_namespace, postgres))
    spec = external_spec(admin, namespace, postgres, deletionPolicy="Delete")
    server = Server(admin, namespace).apply(spec).wait_ready()
    assert server.resource()["metadata"]["finalizers"] == [labels.FINALIZER]
    admin.delete(kinds.SERVICE, namespace, server.names.service)
    eventually("a deleted object is recreated", lambda: server.get(kinds.SERVICE, server.names.service))
    server.delete()
    eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, server.name) is None)

    assert _secret_names(other_server) == {"postgres"}
    assert "status" not in other_server.resource()
    assert operator.error_messages() == []


def _secret_names(server: Server) -> set[str]:
    found: list[Object] = server.objects(kinds.SECRET)
    return {obj["metadata"]["name"] for obj in found}
