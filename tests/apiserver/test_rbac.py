"""RBAC: permissions of the operator's service account with the roles of the chart, checked with SubjectAccessReviews.

tests/chart/test_permissions.py compares the rules of the roles. Here the API server evaluates roles and bindings.
"""

from collections.abc import Iterator, Mapping
from itertools import product

import pytest

from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.chart.rendering import RELEASE, Values
from tests.chart.test_permissions import (
    CLUSTER_PERMISSIONS,
    LEASE_PERMISSIONS,
    NAMESPACE_PERMISSIONS,
    PLATFORM_EVENT_PERMISSIONS,
    PLATFORM_PERMISSIONS,
)

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OTHER_RESOURCES = {
    ("", "nodes"),
    ("", "serviceaccounts"),
    ("", "pods/exec"),
    ("", "serviceaccounts/token"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
}
"""Resources that no rule of the chart contains, and with which the operator could escalate its privileges."""

Permission = tuple[str, str, str]
Allowed = Mapping[tuple[str, str], tuple[str, ...]]

SERVICE_ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_NAMESPACE}", "system:authenticated"]

REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Rbac:
    """Installs the roles and bindings of the chart, and checks what they allow."""

    def __init__(self, admin: Client) -> None:
        self._admin = admin
        self._installed: list[str] = []

    def install(self, values: Values) -> None:
        """Create the chart's roles and bindings."""
        self._installed += chart_rbac.install(self._admin, values)

    def uninstall(self) -> None:
        """Delete them."""
        for path in self._installed:
            self._admin.request("DELETE", path)

    def allows(self, permission: Permission, namespace: str, name: str = "", user: str = "") -> bool:
        """Return whether a user without groups has the permission. Defaults to the operator's service account."""
        group, resource, verb = permission
        plural, _, subresource = resource.partition("/")
        attributes = {
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "verb": verb,
            "namespace": namespace,
            "name": name,
        }
        subject: Object = {"user": user} if user else {"user": SERVICE_ACCOUNT, "groups": GROUPS}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {**subject, "resourceAttributes": attributes},
        }
        return bool(self._admin.request("POST", REVIEW, review)["status"]["allowed"])

    def verbs(self, group: str, resource: str, namespace: str, name: str = "", user: str = "") -> set[str]:
        """Return the allowed verbs for a resource, or for an object."""
        return {verb for verb in VERBS if self.allows((group, resource, verb), namespace, name, user)}

    def allowed(self, namespace: str, name: str = "") -> set[Permission]:
        """Return all permissions of the operator's service account for the resources of these tests."""
        resources = {
            *NAMESPACE_PERMISSIONS,
            *CLUSTER_PERMISSIONS,
            *PLATFORM_PERMISSIONS,
            *LEASE_PERMISSIONS,
            *OTHER_RESOURCES,
        }
        return {
            (*resource, verb)
            for resource, verb in product(resources, VERBS)
            if self.allows((*resource, verb), namespace, name)
        }


@pytest.fixture
def rbac(admin: Client) -> Iterator[Rbac]:
    """Roles that the test installs are deleted after it."""
    rbac = Rbac(admin)
    yield rbac
    rbac.uninstall()


def _permissions(*tables: Allowed) -> set[Permission]:
    return {(*resource, verb) for table in tables for resource, verbs in table.items() for verb in verbs}


def test_cluster_wide_operator_has_its_permissions_in_every_namespace_and_no_others(rbac: Rbac) -> None:
    """This includes namespaces that are created after the installation."""
    rbac.install({})
    assert rbac.allowed("some-namespace") == _permissions(
        NAMESPACE_PERMISSIONS, CLUSTER_PERMISSIONS, PLATFORM_PERMISSIONS
    )


def test_namespaced_operator_has_its_permissions_in_its_namespaces_and_none_elsewhere(rbac: Rbac) -> None:
    """With `watchNamespaces`, nothing but platforms is granted in other namespaces or for the cluster."""
    rbac.install({"watchNamespaces": ["team-a", "team-b"]})
    everywhere = _permissions(PLATFORM_PERMISSIONS)
    assert (
        rbac.allowed("team-a") == rbac.allowed("team-b") == everywhere | _permissions(NAMESPACE_PERMISSIONS)
    )
    assert rbac.allowed("team-c") == everywhere
    assert rbac.allowed("default") == everywhere | _permissions(PLATFORM_EVENT_PERMISSIONS)
    assert rbac.allowed("") == everywhere


def test_operator_without_deletion_rights_cannot_delete_data(rbac: Rbac) -> None:
    """`deletion.allowed: false`: Secrets and PersistentVolumeClaims cannot be deleted, whatever the spec of a server
    is.
    """
    rbac.install({"deletion": {"allowed": False}})
    data = {("", "secrets", "delete"), ("", "persistentvolumeclaims", "delete")}
    assert (
        rbac.allowed("some-namespace")
        == _permissions(NAMESPACE_PERMISSIONS, CLUSTER_PERMISSIONS, PLATFORM_PERMISSIONS) - data
    )


def test_operator_can_change_its_own_lease_only(rbac: Rbac) -> None:
    """Leases of other controllers cannot be changed, and Leases of other namespaces cannot be read."""
    rbac.install({})
    lease = "coordination.k8s.io", "leases"
    assert rbac.verbs(*lease, OPERATOR_NAMESPACE, RELEASE) == {"create", "get", "update"}
    assert rbac.verbs(*lease, OPERATOR_NAMESPACE, "another-controller") == {"create"}
    assert rbac.verbs(*lease, "some-namespace", RELEASE) == set()


def test_secrets_of_platforms_are_readable_by_name_only(rbac: Rbac) -> None:
    """The value does not allow to read other Secrets of the namespace, to list Secrets, or to write them."""
    rbac.install({"watchNamespaces": ["team-a"], "platformSecrets": {"platform": ["postgres-admin"]}})
    assert rbac.verbs("", "secrets", "platform", "postgres-admin") == {"get"}
    assert rbac.verbs("", "secrets", "platform", "another") == set()
    assert rbac.verbs("", "secrets", "platform") == set()
    assert rbac.allowed("platform", "postgres-admin") == {
        ("", "secrets", "get"),
        *_permissions(PLATFORM_PERMISSIONS),
    }


@pytest.mark.parametrize(
    ("role", "writes"),
    [
        ("mlflow-operator-edit", {"create", "update", "patch", "delete", "deletecollection"}),
        ("mlflow-operator-view", set()),
    ],
)
def test_user_roles_grant_mlflowservers_and_never_their_status(
    rbac: Rbac, admin: Client, namespace: str, role: str, writes: set[str]
) -> None:
    """The roles that the chart aggregates to `edit` and `view`, bound to a user in one namespace."""
    rbac.install({})
    user = f"user-of-{role}"
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    admin.request("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)

    def verbs(resource: str, in_namespace: str) -> set[str]:
        return rbac.verbs("mlflow-operator.dev", resource, in_namespace, user=user)

    assert verbs("mlflowservers", namespace) == {"get", "list", "watch"} | writes
    assert verbs("mlflowservers/scale", namespace) == ({"get", "update", "patch"} if writes else set())
    assert verbs("mlflowservers/status", namespace) == set()
    assert verbs("mlflowservers/finalizers", namespace) == set()
    assert verbs("mlflowservers", "another-namespace") == set()
    assert verbs("mlflowplatforms", "") == set()


@pytest.mark.parametrize(
    ("role", "reads"),
    [("mlflow-operator-edit", set()), ("mlflow-operator-view", {"get", "list", "watch"})],
)
def test_user_roles_never_allow_to_write_platforms(
    rbac: Rbac, admin: Client, role: str, reads: set[str]
) -> None:
    """Also if they are bound in the whole cluster and aggregated: only cluster administrators write platforms."""
    rbac.install({"userRoles": {"aggregateToEdit": True}})
    user = f"cluster-user-of-{role}"
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    admin.request("POST", path, binding)
    try:
        for name in ("", "shared"):
            assert rbac.verbs("mlflow-operator.dev", "mlflowplatforms", "", name, user) == reads
            assert rbac.verbs("mlflow-operator.dev", "mlflowplatforms/status", "", name, user) == set()
    finally:
        admin.request("DELETE", f"{path}/{user}")
