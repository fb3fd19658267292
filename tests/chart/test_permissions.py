"""What the operator may do: what it needs, and nothing beside it."""

from collections.abc import Iterator, Mapping

import pytest

from mlflow_operator.framework.observe import OWNED
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.chart.rendering import CASES, NAMESPACE, render

Permission = tuple[str, str, str]

READ = ("get", "list", "watch")
WRITE = (*READ, "create", "patch")

MAY = {
    ("mlflow-operator.dev", "mlflowservers"): (
        *READ,
        "patch",
    ),  # its finalizers; nothing else is ever patched
    ("mlflow-operator.dev", "mlflowservers/status"): ("patch",),
    ("mlflow-operator.dev", "mlflowservers/finalizers"): ("update",),
    ("", "secrets"): (*WRITE, "delete"),  # deletionPolicy Delete
    ("", "configmaps"): (*WRITE, "delete"),
    ("", "services"): (*WRITE, "delete"),
    ("", "persistentvolumeclaims"): (*WRITE, "delete"),  # deletionPolicy Delete
    ("", "namespaces"): ("get",),  # one by name: whether a server goes alone or with all around it
    ("", "pods"): READ,
    ("", "events"): ("list", "create"),
    ("apps", "deployments"): WRITE,
    ("apps", "statefulsets"): (*WRITE, "delete"),
    ("batch", "jobs"): (*READ, "create", "delete"),
    ("batch", "cronjobs"): (*WRITE, "delete"),
    ("policy", "poddisruptionbudgets"): (*WRITE, "delete"),
    ("postgresql.cnpg.io", "clusters"): ("get",),
}
"""In each namespace that is watched. A line more here is a decision: say in the commit what for."""

ANYWHERE = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("list", "watch"),
}
"""What has no namespace; where only some are watched, the operator goes without."""

AT_HOME = {("coordination.k8s.io", "leases"): ("create", "get", "update")}

NAMESPACED = {"watchNamespaces": ["team-a", "team-b"]}


def test_all_namespaces_take_this_and_no_more() -> None:
    """One ClusterRole; the lease stays a matter of the operator's own namespace."""
    granted = _granted(render())
    assert granted[None] == _spelled_out(MAY | ANYWHERE)
    assert granted[NAMESPACE] == _spelled_out(AT_HOME)


def test_some_namespaces_take_this_and_no_more() -> None:
    """A Role in each, and nothing for the cluster as a whole."""
    assert _granted(render(NAMESPACED)) == {
        "team-a": _spelled_out(MAY),
        "team-b": _spelled_out(MAY),
        NAMESPACE: _spelled_out(AT_HOME),
    }
    assert not any(obj["kind"].startswith("ClusterRole") for obj in render(NAMESPACED))


@pytest.mark.parametrize("case", CASES)
def test_no_rule_is_open_ended(case: str) -> None:
    """No `*`: what Kubernetes learns to do tomorrow is not granted today."""
    for rule in (rule for obj in render(CASES[case]) for rule in obj.get("rules", ())):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "nonResourceURLs" not in rule


@pytest.mark.parametrize("kind", [kinds.MLFLOWSERVER, *OWNED], ids=lambda kind: kind.kind)
def test_whatever_is_watched_may_be_watched(kind: Kind) -> None:
    """A kind that the operator comes to own needs a line in the role as well."""
    group = kind.api_version.rpartition("/")[0]
    assert set(READ) <= set(MAY[group, kind.plural])


def test_data_can_t_be_deleted_where_that_is_not_wanted() -> None:
    """Not by any mistake of ours or a user's: the API server refuses."""
    without = _granted(render({"deletion": {"allowed": False}}))[None]
    assert without == _spelled_out(MAY | ANYWHERE) - {
        ("", "secrets", "delete"),
        ("", "persistentvolumeclaims", "delete"),
    }


def test_the_uninstalling_hook_takes_this_and_no_more() -> None:
    """Beside the operator's own rights: to stop the operator. And it lasts no longer than the hook."""
    hooks = [obj for obj in render(NAMESPACED) if _is_hook(obj)]
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


def test_only_the_own_lease_can_be_changed() -> None:
    """Another controller's in the same namespace can't be taken."""
    rules = [rule for obj in render() for rule in obj.get("rules", ()) if "leases" in rule["resources"]]
    named = {verb: rule.get("resourceNames") for rule in rules for verb in rule["verbs"]}
    assert named == {"create": None, "get": ["mlflow-operator"], "update": ["mlflow-operator"]}


def test_a_shared_platforms_secrets_are_granted_by_name() -> None:
    """Where only some namespaces are watched; and nowhere else any other."""
    watched = render(NAMESPACED | {"adminSecrets": {"platform": ["postgres-admin", "minio-admin"]}})
    assert _granted(watched)["platform"] == {("", "secrets", "get")}
    rules = [
        rule
        for obj in watched
        if obj["kind"] == "Role" and obj["metadata"]["namespace"] == "platform"
        for rule in obj["rules"]
    ]
    assert [rule["resourceNames"] for rule in rules] == [["postgres-admin", "minio-admin"]]
    assert "platform" not in _granted(render({"adminSecrets": {"platform": ["postgres-admin"]}}))


def test_who_may_edit_a_namespace_may_have_servers_in_it() -> None:
    """And who may look may look; status stays the operator's."""
    roles = {obj["metadata"]["name"]: obj for obj in render() if obj["kind"] == "ClusterRole"}
    edit, view = roles["mlflow-operator-edit"], roles["mlflow-operator-view"]
    assert {key for key in edit["metadata"]["labels"] if "aggregate" in key} == {
        "rbac.authorization.k8s.io/aggregate-to-admin",
        "rbac.authorization.k8s.io/aggregate-to-edit",
    }
    assert "rbac.authorization.k8s.io/aggregate-to-view" in view["metadata"]["labels"]
    assert {resource for rule in edit["rules"] for resource in rule["resources"]} == {
        "mlflowservers",
        "mlflowservers/scale",
    }
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == set(READ)


def _granted(objects: list[Object]) -> dict[str | None, set[Permission]]:
    """What the operator's service account may do: per namespace, and anywhere (None)."""
    roles = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects}
    granted: dict[str | None, set[Permission]] = {}
    for binding in objects:
        if not binding["kind"].endswith("Binding") or _is_hook(binding):
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


def _spelled_out(may: Mapping[tuple[str, str], tuple[str, ...]]) -> set[Permission]:
    return {(group, resource, verb) for (group, resource), verbs in may.items() for verb in verbs}
