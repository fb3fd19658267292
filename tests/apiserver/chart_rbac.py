"""The operator's service account, its roles and bindings, and the policy for it, as its chart renders them."""

from collections.abc import Collection

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import ApiError, Client
from tests.chart.rendering import NAMESPACE, Values, render
from tests.polling import eventually

ROLES = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
ALL = ("ServiceAccount", *ROLES, *POLICIES)

_PLURALS = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}


def install(client: Client, values: Values, kinds_to_create: Collection[str] = ROLES) -> list[str]:
    """Create the objects of these kinds, and their namespaces, like `helm install` without hooks.

    Returns the API paths of the objects.
    """
    return [
        _create(client, obj)
        for obj in render(values)
        if obj["kind"] in kinds_to_create and "helm.sh/hook" not in (obj["metadata"].get("annotations") or {})
    ]


def token(client: Client, service_account: str) -> str:
    """Return a token of a service account in the namespace of the operator."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{service_account}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(client.request("POST", path, request)["status"]["token"])


def wait_until_enforced(operator: Client, namespace: str) -> None:
    """Wait until the API server enforces the policy, which it reads with a watch.

    `operator` is a client with the operator's service account, `namespace` one that it may write to.
    """
    unlabelled = {"metadata": {"name": "policy-is-enforced", "namespace": namespace}}

    def is_denied() -> bool:
        try:
            operator.create(kinds.CONFIGMAP, unlabelled, dryRun="All")
        except ApiError as error:
            return "ValidatingAdmissionPolicy" in str(error)
        return False

    eventually("the admission policy is enforced", is_denied)


def _create(client: Client, obj: Object) -> str:
    namespace = obj["metadata"].get("namespace")
    if namespace:
        _create_namespace(client, namespace)
    root = "/apis" if "/" in obj["apiVersion"] else "/api"
    scope = f"/namespaces/{namespace}" if namespace else ""
    plural = _PLURALS.get(obj["kind"], f"{obj['kind'].lower()}s")
    path = f"{root}/{obj['apiVersion']}{scope}/{plural}"
    client.request("POST", path, obj)
    return f"{path}/{obj['metadata']['name']}"


def _create_namespace(client: Client, name: str) -> None:
    try:
        client.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
