"""Roles of users: the ClusterRoles `admin`, `edit` and `view` include MLflowServers."""

from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.polling import eventually

RBAC = "/apis/rbac.authorization.k8s.io/v1"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READ_VERBS = {"get", "list", "watch"}
EXPECTED = {"user-admin": {*VERBS}, "user-edit": {*VERBS}, "user-view": READ_VERBS}


def test_edit_and_view_include_mlflowservers(admin: Client, namespace: str) -> None:
    """The chart's roles are aggregated into Kubernetes' own `admin`, `edit` and `view`, each at another time."""
    for role in ("admin", "edit", "view"):
        binding: Object = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"user-{role}"}],
        }
        admin.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", binding)

    def verbs() -> dict[str, set[str]]:
        return {user: allowed_verbs(admin, namespace, user) for user in EXPECTED}

    eventually("all roles are aggregated", lambda: verbs() == EXPECTED)


def allowed_verbs(admin: Client, namespace: str, user: str) -> set[str]:
    """Return the verbs that a user may use on MLflowServers."""
    return {verb for verb in VERBS if _is_allowed(admin, namespace, user, verb)}


def _is_allowed(admin: Client, namespace: str, user: str, verb: str) -> bool:
    attributes = {
        "group": "mlflow-operator.dev",
        "resource": "mlflowservers",
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
