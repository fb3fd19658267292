"""Roles of users: `view` includes MLflowServers, `admin` and `edit` only if an administrator wants it."""

from collections.abc import Mapping

from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.polling import eventually

RBAC = "/apis/rbac.authorization.k8s.io/v1"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READ_VERBS = {"get", "list", "watch"}
DEFAULT_ROLES = ("admin", "edit", "view")


def bind(admin: Client, namespace: str, role: str) -> None:
    """Bind a ClusterRole to the user with its name in the namespace."""
    binding: Object = {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}],
    }
    admin.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", binding)


def wait_for_verbs(admin: Client, namespace: str, expected: Mapping[str, set[str]]) -> None:
    """Wait until the users may use exactly these verbs: each role is aggregated at another time."""

    def verbs() -> dict[str, set[str]]:
        return {user: allowed_verbs(admin, namespace, user) for user in expected}

    eventually("all roles are aggregated", lambda: verbs() == expected)


def test_edit_does_not_include_writing_mlflowservers(admin: Client, namespace: str) -> None:
    """The chart's role must be bound to users who may do that."""
    for role in (*DEFAULT_ROLES, "mlflow-operator-edit"):
        bind(admin, namespace, role)
    expected = dict.fromkeys(DEFAULT_ROLES, READ_VERBS) | {"mlflow-operator-edit": {*VERBS}}
    wait_for_verbs(admin, namespace, expected)


def test_edit_includes_mlflowservers_with_aggregation(admin: Client, namespace: str) -> None:
    """`userRoles.aggregateToEdit`. `view` does not change."""
    for role in DEFAULT_ROLES:
        bind(admin, namespace, role)
    values = {"fullnameOverride": "aggregating", "userRoles": {"aggregateToEdit": True}}
    installed = chart_rbac.install(admin, values, ("ClusterRole",))
    try:
        wait_for_verbs(admin, namespace, {"admin": {*VERBS}, "edit": {*VERBS}, "view": READ_VERBS})
    finally:
        for path in installed:
            admin.request("DELETE", path)


def test_edit_and_view_never_write_platforms(admin: Client) -> None:
    """Also if they are bound in the whole cluster: a platform decides where administrators' credentials are sent."""
    for role in DEFAULT_ROLES:
        binding: Object = {
            "metadata": {"name": f"everywhere-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"everywhere-{role}"}
            ],
        }
        admin.request("POST", f"{RBAC}/clusterrolebindings", binding)

    def verbs() -> dict[str, set[str]]:
        return {
            role: allowed_verbs(admin, "", f"everywhere-{role}", "mlflowplatforms") for role in DEFAULT_ROLES
        }

    eventually("all roles are aggregated", lambda: verbs() == dict.fromkeys(DEFAULT_ROLES, READ_VERBS))
    for role in DEFAULT_ROLES:
        assert allowed_verbs(admin, "", f"everywhere-{role}", "mlflowplatforms/status") == set()


def allowed_verbs(admin: Client, namespace: str, user: str, resource: str = "mlflowservers") -> set[str]:
    """Return the verbs that a user may use on a resource."""
    return {verb for verb in VERBS if _is_allowed(admin, namespace, user, resource, verb)}


def _is_allowed(admin: Client, namespace: str, user: str, resource: str, verb: str) -> bool:
    plural, _, subresource = resource.partition("/")
    attributes = {
        "group": "mlflow-operator.dev",
        "resource": plural,
        "subresource": subresource,
        "verb": verb,
        "namespace": namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    response = admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(response["status"]["allowed"])
