"""An operator that only watches some namespaces, with permissions only in those namespaces."""

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.integration.conftest import Operators
from tests.integration.postgres import Postgres
from tests.integration.server import Server, external_spec
from tests.integration.test_platform import SECRET, Platform
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


def test_server_of_a_namespaced_operator_uses_a_platform(
    operators: Operators, admin: Client, postgres: Postgres, namespace: str, other_namespace: str
) -> None:
    """With the chart's Roles. It reads the platform's Secret by its name, in a namespace that it does not watch."""
    values = {
        "fullnameOverride": "platform-user",
        "watchNamespaces": [namespace],
        "platformSecrets": {other_namespace: [SECRET]},
    }
    chart_rbac.install(admin, values, chart_rbac.ALL)
    platform = Platform(admin, other_namespace, postgres)
    platform.put_secret()
    platform.apply({"kubernetes.io/metadata.name": namespace})
    try:
        operator = operators.start(values)
        eventually("the operator leads", operator.is_leader)
        spec = external_spec(admin, namespace, postgres, deletionPolicy="Delete")
        server = Server(admin, namespace).apply(
            {**spec, "platformRef": {"name": platform.name}, "database": {"platform": {}}}
        )
        server.wait_for("DatabaseReady")
        assert server.status["platform"]["parts"] == ["Database"]
        assert server.get(kinds.SECRET, SECRET) is None
        server.delete()
        eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, server.name) is None)
        assert operator.error_messages() == []
    finally:
        platform.delete()


def test_operator_without_permissions_for_platforms_reconciles_servers_without_one(
    operators: Operators, admin: Client, postgres: Postgres, namespace: str
) -> None:
    """With the roles of an earlier release. A server that could use a default platform waits, since it never moves."""
    values = {"fullnameOverride": "earlier-roles", "watchNamespaces": [namespace]}
    installed = chart_rbac.install(admin, values, chart_rbac.ALL)
    for path in installed:
        if "clusterrole" in path:
            admin.request("DELETE", path)
    operator = operators.start(values)
    eventually("the operator leads", operator.is_leader)
    server = Server(admin, namespace).apply(external_spec(admin, namespace, postgres)).wait_ready()
    undecided = Server(admin, namespace, "undecided").apply({})
    message = undecided.wait_for("Ready", "False", "OperationRefused")["message"]
    assert "mlflowplatforms" in message
    assert _secret_names(undecided) == _secret_names(server)
    admin.delete(kinds.SERVICE, namespace, server.names.service)
    eventually("a deleted object is recreated", lambda: server.get(kinds.SERVICE, server.names.service))


def _secret_names(server: Server) -> set[str]:
    found: list[Object] = server.objects(kinds.SECRET)
    return {obj["metadata"]["name"] for obj in found}
