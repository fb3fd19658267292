"""Roles of users and of the operator's account: the tables in docs/reference/roles.md, checked by an API server."""

from collections.abc import Iterator, Mapping

import pytest

from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import ApiError, Client
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.chart.rendering import RELEASE
from tests.polling import eventually
from tests.reference.roles import (
    CLUSTER_ROLES,
    PLATFORM_NAMESPACE,
    PLATFORM_TEAM,
    PLATFORM_TEAM_ROLE,
    RESOURCES,
    VERBS,
    Resource,
    Subject,
)

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
API_GROUP = "rbac.authorization.k8s.io"
EVERYWHERE = "-everywhere"
"""Suffix of the users whose roles are bound in the whole cluster."""

OTHER_NAMESPACE = "team-of-others"
OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"


def binding(role: str, user: str) -> Object:
    """Return a binding of a ClusterRole to a user."""
    return {
        "metadata": {"name": f"{role}-of-{user}"},
        "roleRef": {"apiGroup": API_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": API_GROUP, "kind": "User", "name": user}],
    }


@pytest.fixture
def roles(admin: Client, namespace: str) -> Iterator[str]:
    """Bind the roles of all subjects, and return the namespace in which they are bound."""
    created: list[str] = []

    def create(path: str, obj: Object) -> None:
        admin.request("POST", path, obj)
        created.append(f"{path}/{obj['metadata']['name']}")

    try:
        admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": PLATFORM_NAMESPACE}})
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    create(f"{RBAC}/clusterroles", PLATFORM_TEAM_ROLE)
    create(f"{RBAC}/clusterrolebindings", binding("cluster-admin", Subject.CLUSTER_ADMIN.value))
    create(f"{RBAC}/clusterrolebindings", binding(PLATFORM_TEAM, Subject.PLATFORM.value))
    platform = f"{RBAC}/namespaces/{PLATFORM_NAMESPACE}/rolebindings"
    create(platform, binding("edit", Subject.PLATFORM.value))
    for role in CLUSTER_ROLES.values():
        create(f"{RBAC}/namespaces/{namespace}/rolebindings", binding(role, role))
        create(f"{RBAC}/clusterrolebindings", binding(role, f"{role}{EVERYWHERE}"))
    yield namespace
    for path in created:
        admin.request("DELETE", path)


def allowed_verbs(admin: Client, namespace: str, user: str, resource: Resource) -> set[str]:
    """Return the verbs that a user may use on a resource."""
    return {verb for verb in VERBS if _is_allowed(admin, namespace, user, resource, verb)}


def _is_allowed(admin: Client, namespace: str, user: str, resource: Resource, verb: str) -> bool:
    plural, _, subresource = resource.name.partition("/")
    attributes = {
        "group": resource.group,
        "resource": plural,
        "subresource": subresource,
        "verb": verb,
        "namespace": "" if plural == "mlflowplatforms" else namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    return bool(admin.request("POST", REVIEW, review)["status"]["allowed"])


def user_of(subject: Subject, *, everywhere: bool) -> str:
    """Return the user to whom the role of a subject is bound."""
    if subject is Subject.OPERATOR:
        return OPERATOR
    role = CLUSTER_ROLES.get(subject)
    if role is None:
        return str(subject.value)
    return f"{role}{EVERYWHERE}" if everywhere else role


def check(admin: Client, namespace: str, resources: tuple[Resource, ...]) -> None:
    """Check the rows of the table. Waits, because each role is aggregated at another time."""
    expected = {
        (resource.title, subject.value): resource.allowed(subject)
        for resource in resources
        for subject in Subject
    }

    def observed() -> Mapping[tuple[str, str], set[str]]:
        return {
            (resource.title, subject.value): allowed_verbs(
                admin,
                _namespace_of(resource, namespace),
                user_of(subject, everywhere=resource.everywhere),
                resource,
            )
            for resource in resources
            for subject in Subject
        }

    def differences() -> Mapping[tuple[str, str], set[str]]:
        return {cell: verbs for cell, verbs in observed().items() if verbs != expected[cell]}

    try:
        eventually("all roles are aggregated", lambda: not differences())
    except AssertionError:
        assert differences() == {}


def _namespace_of(resource: Resource, namespace: str) -> str:
    if resource.elsewhere:
        return OTHER_NAMESPACE
    return PLATFORM_NAMESPACE if PLATFORM_NAMESPACE in resource.title else namespace


def test_roles_have_the_documented_permissions(admin: Client, roles: str) -> None:
    """Only cluster administrators and the platform team write platforms; `edit` does not write MLflowServers."""
    check(admin, roles, tuple(resource for resource in RESOURCES if not resource.aggregated))


def test_edit_includes_mlflowservers_with_aggregation(admin: Client, roles: str) -> None:
    """`userRoles.aggregateToEdit`. `view` does not change."""
    values = {"fullnameOverride": "aggregating", "userRoles": {"aggregateToEdit": True}}
    installed = chart_rbac.install(admin, values, ("ClusterRole",))
    try:
        check(admin, roles, tuple(resource for resource in RESOURCES if resource.aggregated))
    finally:
        for path in installed:
            admin.request("DELETE", path)
