"""doctor asks for just those permissions that the chart grants, and finds the operator that the chart installs."""

from mlflow_operator import __version__
from mlflow_operator.doctor import needs, operators
from mlflow_operator.doctor.needs import Permission
from mlflow_operator.kube.objects import Object
from tests.chart.rendering import NAMESPACE, only, render


def granted(objects: list[Object]) -> set[Permission]:
    """What the roles that are bound to the operator's account grant; those of hooks and users left out."""
    found = set()
    for role in objects:
        name, namespace = role["metadata"]["name"], role["metadata"].get("namespace")
        if role["kind"] not in {"Role", "ClusterRole"} or name.endswith(("-uninstall", "-edit", "-view")):
            continue
        for rule in role["rules"]:
            found |= {
                Permission(group, resource, verb, namespace, one)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for one in rule.get("resourceNames", [""])
            }
    return found


def test_it_asks_for_what_the_chart_grants_and_nothing_else() -> None:
    """A line more in the chart's roles is a line more in doctor/needs.py, or doctor calls well what is not."""
    assert {*needs.needed((), NAMESPACE, "mlflow-operator")} == granted(render())


def test_where_some_namespaces_are_watched_it_asks_in_each() -> None:
    """And for nothing beyond them."""
    objects = render({"watchNamespaces": ["team-a", "team-b"]})
    deployment = only(objects, "Deployment")
    watched = operators.watched_namespaces(deployment)
    assert watched == ("team-a", "team-b")
    assert {*needs.needed(watched, NAMESPACE, operators.lease_name(deployment))} == granted(objects)


def test_what_may_be_withheld_is_what_the_chart_can_withhold() -> None:
    """Else an operator without the right to delete data would count as at fault, or a lack of it as intent."""
    lacking = granted(render()) - granted(render({"deletion": {"allowed": False}}))
    assert {(p.group, p.resource, p.verb) for p in lacking} == needs.TO_DELETE_DATA


def test_it_knows_the_operator_by_what_the_chart_gives_it() -> None:
    """Its label, how it is started, its version, which is that of the code."""
    deployment = only(render({"fullnameOverride": "mine"}), "Deployment")
    labels = deployment["metadata"]["labels"]
    key, _, value = operators.LABEL.partition("=")
    assert labels[key] == value
    assert labels["app.kubernetes.io/version"] == __version__
    assert operators.lease_name(deployment) == "mine"
    assert operators.watched_namespaces(deployment) == ()


def test_in_its_pod_it_knows_where_it_is() -> None:
    """Whatever the pod's account may list."""
    deployment = only(render({"watchNamespaces": ["team-a", "team-b"]}), "Deployment")
    env = {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MLFLOW_OPERATOR_DOCTOR_OPERATOR"] == f"{NAMESPACE}/{deployment['metadata']['name']}"
    assert env["MLFLOW_OPERATOR_DOCTOR_NAMESPACES"].split() == ["team-a", "team-b"]
