"""doctor checks exactly the permissions that the chart grants, and finds the operator that the chart installs."""

from mlflow_operator import __version__
from mlflow_operator.api import mlflowplatform
from mlflow_operator.doctor import operators, permissions
from mlflow_operator.doctor.permissions import Permission
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import resolve_platform
from tests.chart.rendering import NAMESPACE, get_object, render
from tests.unit.api import platform_refusals


def operator_permissions(objects: list[Object]) -> set[Permission]:
    """Permissions of the operator's service account, without the roles of hooks and users."""
    permissions = set()
    for role in objects:
        name, namespace = role["metadata"]["name"], role["metadata"].get("namespace")
        if role["kind"] not in {"Role", "ClusterRole"} or name.endswith(("-uninstall", "-edit", "-view")):
            continue
        for rule in role["rules"]:
            permissions |= {
                Permission(group, resource, verb, namespace, resource_name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for resource_name in rule.get("resourceNames", [""])
            }
    return permissions


def test_doctor_checks_the_permissions_that_the_chart_grants() -> None:
    """A new rule in the chart must be added to doctor/permissions.py, or doctor does not notice that it is missing."""
    assert {*permissions.required_permissions((), NAMESPACE, "mlflow-operator")} == operator_permissions(
        render()
    )


def test_doctor_checks_permissions_in_each_watched_namespace() -> None:
    """doctor checks no permissions in other namespaces."""
    objects = render({"watchNamespaces": ["team-a", "team-b"]})
    deployment = get_object(objects, "Deployment")
    watched = operators.watched_namespaces(deployment)
    assert watched == ("team-a", "team-b")
    assert {
        *permissions.required_permissions(watched, NAMESPACE, operators.lease_name(deployment))
    } == operator_permissions(objects)


def test_doctor_checks_the_secrets_of_platforms_that_the_chart_grants() -> None:
    """With `platformSecrets`, an operator that watches selected namespaces may read them, and doctor expects that."""
    platform = resolve_platform(
        mlflowplatform.parse({"metadata": {"name": "shared"}, "spec": platform_refusals.platform()})
    )
    values = {"watchNamespaces": ["team-a"]}
    secrets = {"platformSecrets": {"mlflow-platform": ["ca", "minio-admin", "postgres-admin"]}}
    added = operator_permissions(render(values | secrets)) - operator_permissions(render(values))
    assert {*permissions.platform_secret_permissions(platform)} == added


def test_optional_permissions_are_those_of_deletion_allowed() -> None:
    """doctor accepts that these permissions are missing, and no others."""
    missing = operator_permissions(render()) - operator_permissions(render({"deletion": {"allowed": False}}))
    assert {(p.group, p.resource, p.verb) for p in missing} == permissions.DATA_DELETION


def test_doctor_recognizes_the_deployment_of_the_chart() -> None:
    """By its labels, its arguments and its version, which is the version of the code."""
    deployment = get_object(render({"fullnameOverride": "mine"}), "Deployment")
    labels = deployment["metadata"]["labels"]
    key, _, value = operators.LABEL_SELECTOR.partition("=")
    assert labels[key] == value
    assert labels["app.kubernetes.io/version"] == __version__
    assert operators.lease_name(deployment) == "mine"
    assert operators.watched_namespaces(deployment) == ()


def test_doctor_environment_names_the_deployment_and_namespaces() -> None:
    """In the operator's pod, doctor does not depend on permissions to list namespaces and Deployments."""
    deployment = get_object(render({"watchNamespaces": ["team-a", "team-b"]}), "Deployment")
    env = {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MLFLOW_OPERATOR_DOCTOR_OPERATOR"] == f"{NAMESPACE}/{deployment['metadata']['name']}"
    assert env["MLFLOW_OPERATOR_DOCTOR_NAMESPACES"].split() == ["team-a", "team-b"]
