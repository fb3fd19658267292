"""The operator's service account, roles and bindings, as its chart renders them."""

from mlflow_operator.kube.objects import Object
from tests.apiserver.client import ApiError, Client
from tests.chart.rendering import Values, render

_ROOTS = {"v1": "/api/v1", "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1"}


def install(client: Client, values: Values, kinds: tuple[str, ...] = ("Role", "Binding")) -> list[str]:
    """Create the objects whose kind ends with one of `kinds`, and their namespaces, like `helm install` without hooks.

    Returns the API paths of the objects.
    """
    return [
        _create(client, obj)
        for obj in render(values)
        if obj["kind"].endswith(kinds) and "helm.sh/hook" not in (obj["metadata"].get("annotations") or {})
    ]


def _create(client: Client, obj: Object) -> str:
    namespace = obj["metadata"].get("namespace")
    if namespace:
        _create_namespace(client, namespace)
    scope = f"/namespaces/{namespace}" if namespace else ""
    path = f"{_ROOTS[obj['apiVersion']]}{scope}/{obj['kind'].lower()}s"
    client.request("POST", path, obj)
    return f"{path}/{obj['metadata']['name']}"


def _create_namespace(client: Client, name: str) -> None:
    try:
        client.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
