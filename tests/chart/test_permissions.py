"""RBAC rules of the operator's chart: exactly the permissions that the operator needs."""

from collections.abc import Iterator, Mapping

import pytest

from mlflow_operator.framework.observe import LISTED
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.chart.rendering import NAMESPACE, VALUES_CASES, Values, render

Permission = tuple[str, str, str]

READ = ("get", "list", "watch")
WRITE = (*READ, "create", "patch")

NAMESPACE_PERMISSIONS = {
    ("mlflow-operator.dev", "mlflowservers"): (
        *READ,
        "patch",
    ),  # finalizers only
    ("mlflow-operator.dev", "mlflowservers/status"): ("patch",),
    ("mlflow-operator.dev", "mlflowservers/finalizers"): ("update",),
    ("", "secrets"): ("get", "create", "patch", "delete"),  # deletionPolicy Delete
    ("", "configmaps"): (*WRITE, "delete"),
    ("", "services"): (*WRITE, "delete"),
    ("", "persistentvolumeclaims"): (*WRITE, "delete"),  # deletionPolicy Delete
    ("", "namespaces"): ("get",),  # whether the namespace of a server is terminating
    ("", "pods"): READ,
    ("", "events"): ("list", "create"),
    ("apps", "deployments"): (*WRITE, "delete"),  # to adopt a restored one on OpenShift
    ("apps", "statefulsets"): (*WRITE, "delete"),
    ("batch", "jobs"): (
        *WRITE,
        "delete",
    ),  # patch: owner of a restored Job, outcome of one with injected containers
    ("batch", "cronjobs"): (*WRITE, "delete"),
    ("policy", "poddisruptionbudgets"): (*WRITE, "delete"),
    ("postgresql.cnpg.io", "clusters"): ("get",),
}
"""Permissions in each watched namespace. State the reason for an additional permission in the commit message."""

CLUSTER_PERMISSIONS = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("list", "watch"),
    ("", "namespaces"): ("get", "list"),  # list: which namespaces two default platforms select
    ("mlflow-operator.dev", "mlflowplatforms"): (*READ, "patch"),  # patch: finalizer
}
"""Permissions for cluster-scoped resources. Not granted with `watchNamespaces`."""

PLATFORM_PERMISSIONS = {
    ("mlflow-operator.dev", "mlflowplatforms"): READ,
    ("mlflow-operator.dev", "mlflowplatforms/status"): ("patch",),
}
"""Permissions in the whole cluster, also with `watchNamespaces`."""

PLATFORM_EVENT_PERMISSIONS = {("", "events"): ("create",)}
"""Permissions in the namespace `default` with `watchNamespaces`: Kubernetes stores Events about platforms there."""

LEASE_PERMISSIONS = {("coordination.k8s.io", "leases"): ("create", "get", "update")}

WATCHED_NAMESPACES = {"watchNamespaces": ["team-a", "team-b"]}


def test_cluster_wide_permissions_are_exact() -> None:
    """ClusterRoles, and a Role for the Lease in the namespace of the operator."""
    granted = _granted(render())
    assert granted[None] == _flatten(NAMESPACE_PERMISSIONS | PLATFORM_PERMISSIONS | CLUSTER_PERMISSIONS)
    assert granted[NAMESPACE] == _flatten(LEASE_PERMISSIONS)


def test_namespaced_permissions_are_exact() -> None:
    """A Role in each watched namespace, and a ClusterRole for platforms only."""
    assert _granted(render(WATCHED_NAMESPACES)) == {
        "team-a": _flatten(NAMESPACE_PERMISSIONS),
        "team-b": _flatten(NAMESPACE_PERMISSIONS),
        NAMESPACE: _flatten(LEASE_PERMISSIONS),
        "default": _flatten(PLATFORM_EVENT_PERMISSIONS),
        None: _flatten(PLATFORM_PERMISSIONS),
    }


@pytest.mark.parametrize("case", VALUES_CASES)
def test_rules_have_no_wildcards(case: str) -> None:
    """A wildcard would grant permissions that Kubernetes adds in the future."""
    for rule in (rule for obj in render(VALUES_CASES[case]) for rule in obj.get("rules", ())):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "nonResourceURLs" not in rule


@pytest.mark.parametrize("case", VALUES_CASES)
def test_no_account_can_list_or_watch_secrets(case: str) -> None:
    """Either shows all of them to an attacker with the token of the operator."""
    for permissions in _granted(render(VALUES_CASES[case])).values():
        assert not {("", "secrets", verb) for verb in ("list", "watch", "deletecollection")} & permissions


@pytest.mark.parametrize("kind", [kinds.MLFLOWSERVER, *LISTED], ids=lambda kind: kind.kind)
def test_operator_can_watch_the_kinds_that_it_lists(kind: Kind) -> None:
    """A new kind also requires a rule in the role."""
    group = kind.api_version.rpartition("/")[0]
    assert set(READ) <= set(NAMESPACE_PERMISSIONS[group, kind.plural])


def test_deletion_allowed_false_removes_delete_permissions() -> None:
    """The API server then rejects the deletion of data, whatever the operator or a user does."""
    permissions = _granted(render({"deletion": {"allowed": False}}))[None]
    assert permissions == _flatten(NAMESPACE_PERMISSIONS | PLATFORM_PERMISSIONS | CLUSTER_PERMISSIONS) - {
        ("", "secrets", "delete"),
        ("", "persistentvolumeclaims", "delete"),
    }


def test_pre_delete_hook_permissions_are_exact() -> None:
    """It may scale down the operator. Its role is deleted when the hook succeeds."""
    hooks = [obj for obj in render(WATCHED_NAMESPACES) if _is_hook(obj)]
    (role,) = (obj for obj in hooks if obj["kind"] == "Role")
    assert role["metadata"]["namespace"] == NAMESPACE
    assert {*_permissions(role)} == {
        ("apps", "deployments", "get"),
        ("apps", "deployments", "patch"),
        ("", "pods", "list"),
    }
    assert role["rules"][0]["resourceNames"] == ["mlflow-operator"]
    for obj in hooks:
        policy = obj["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert "hook-succeeded" in policy


def test_only_the_operators_lease_can_be_changed() -> None:
    """Leases of other controllers in the same namespace cannot be changed."""
    rules = [rule for obj in render() for rule in obj.get("rules", ()) if "leases" in rule["resources"]]
    resource_names = {verb: rule.get("resourceNames") for rule in rules for verb in rule["verbs"]}
    assert resource_names == {"create": None, "get": ["mlflow-operator"], "update": ["mlflow-operator"]}


def test_secrets_of_platforms_are_granted_by_name() -> None:
    """Only with `watchNamespaces`, and no other Secrets of that namespace."""
    values = {"platformSecrets": {"platform": ["postgres-admin", "minio-admin"]}}
    objects = render(WATCHED_NAMESPACES | values)
    assert _granted(objects)["platform"] == {("", "secrets", "get")}
    rules = [
        rule
        for obj in objects
        if obj["kind"] == "Role" and obj["metadata"]["namespace"] == "platform"
        for rule in obj["rules"]
    ]
    assert [rule["resourceNames"] for rule in rules] == [["postgres-admin", "minio-admin"]]
    assert "platform" not in _granted(render(values))


@pytest.mark.parametrize(
    ("values", "aggregated_to"),
    [({}, set()), ({"userRoles": {"aggregateToEdit": True}}, {"admin", "edit"})],
    ids=["default", "aggregateToEdit"],
)
def test_role_for_writing_servers_is_aggregated_only_on_request(
    values: Values, aggregated_to: set[str]
) -> None:
    """It includes running pods with every ServiceAccount of the namespace."""
    assert _aggregated_to(_user_role("edit", values)) == aggregated_to
    assert _aggregated_to(_user_role("view", values)) == {"view"}


def test_user_roles_do_not_include_the_status() -> None:
    """One role to manage servers, one to read them. Only the operator may change the status."""
    edit, view = _user_role("edit", {}), _user_role("view", {})
    assert {resource for rule in edit["rules"] for resource in rule["resources"]} == {
        "mlflowservers",
        "mlflowservers/scale",
    }
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == set(READ)


def _user_role(suffix: str, values: Values) -> Object:
    name = f"mlflow-operator-{suffix}"
    (role,) = (
        obj for obj in render(values) if obj["kind"] == "ClusterRole" and obj["metadata"]["name"] == name
    )
    return role


def _aggregated_to(role: Object) -> set[str]:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    return {key.removeprefix(prefix) for key in role["metadata"]["labels"] if key.startswith(prefix)}


@pytest.mark.parametrize("values", [{}, {"userRoles": {"aggregateToEdit": True}}], ids=str)
def test_only_operators_and_readers_have_roles_for_platforms(values: Values) -> None:
    """A platform decides where the operator sends administrators' credentials. `patch` is for the finalizer."""
    verbs = {
        obj["metadata"]["name"]: {*rule["verbs"]}
        for obj in render(values)
        for rule in obj.get("rules", ())
        if any(resource.startswith("mlflowplatforms") for resource in rule["resources"])
        and "mlflowplatforms/status" not in rule["resources"]
    }
    assert verbs == {
        "mlflow-operator": {"patch"},
        "mlflow-operator-platforms": set(READ),
        "mlflow-operator-view": set(READ),
    }


def test_operators_of_the_same_name_have_different_cluster_roles() -> None:
    """Otherwise the second one with `watchNamespaces` could not be installed."""
    names = {obj["metadata"]["name"] for obj in render(WATCHED_NAMESPACES) if obj["kind"] == "ClusterRole"}
    assert names == {f"mlflow-operator-{NAMESPACE}-platforms"}


def _granted(objects: list[Object]) -> dict[str | None, set[Permission]]:
    """Permissions of the operator's service account by namespace; None: in all namespaces."""
    roles = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects}
    granted: dict[str | None, set[Permission]] = {}
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding") or _is_hook(binding):
            continue
        namespace = binding["metadata"].get("namespace")
        role = roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]
        granted.setdefault(namespace, set()).update(_permissions(role))
    return granted


def _is_hook(obj: Object) -> bool:
    return "helm.sh/hook" in (obj["metadata"].get("annotations") or {})


def _permissions(role: Object) -> Iterator[Permission]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def _flatten(table: Mapping[tuple[str, str], tuple[str, ...]]) -> set[Permission]:
    return {(group, resource, verb) for (group, resource), verbs in table.items() for verb in verbs}
