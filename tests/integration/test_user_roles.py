"""The roles of users: who may edit a namespace may have MLflowServers in it."""

from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.server import eventually

RBAC = "/apis/rbac.authorization.k8s.io/v1"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READ = {"get", "list", "watch"}


def test_edit_and_view_include_mlflowservers(admin: Client, namespace: str) -> None:
    """The chart's roles are aggregated into Kubernetes' own `admin`, `edit` and `view`."""
    for role in ("admin", "edit", "view"):
        binding: Object = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"user-{role}"}],
        }
        admin.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", binding)
    eventually("the roles are aggregated", lambda: allowed(admin, namespace, "user-view"))
    assert allowed(admin, namespace, "user-view") == READ
    assert allowed(admin, namespace, "user-edit") == allowed(admin, namespace, "user-admin") == {*VERBS}


def allowed(admin: Client, namespace: str, user: str) -> set[str]:
    """What a user may do with MLflowServers."""
    return {verb for verb in VERBS if _may(admin, namespace, user, verb)}


def _may(admin: Client, namespace: str, user: str, verb: str) -> bool:
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
    answer = admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
