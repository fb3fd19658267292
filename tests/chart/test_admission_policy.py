"""The ValidatingAdmissionPolicy for the operator's service account. tests/apiserver tests what it rejects."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.errors import MAX_MESSAGE_CHARS
from mlflow_operator.kube.objects import Object
from tests.chart.rendering import NAMESPACE, Values, get_object, render
from tests.chart.test_permissions import WATCHED_NAMESPACES

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"

UNLABELLED = {("", "events"), ("coordination.k8s.io", "leases")}
"""Resources that the operator writes without labels, in addition to its own API group."""

OWN_RESOURCES = {
    ("mlflow-operator.dev", resource, operation)
    for resource in ("mlflowplatforms", "mlflowservers")
    for operation in ("CREATE", "UPDATE", "DELETE")
}
"""Of these, the operator may only change finalizers. Users may write them, with roles of the same chart."""

ADMISSION_OPERATIONS = {
    "create": {"CREATE"},
    "update": {"UPDATE"},
    # An apply of an object that does not exist creates it.
    "patch": {"CREATE", "UPDATE"},
    "delete": {"DELETE"},
    "deletecollection": {"DELETE"},
}

OLD_CLUSTER = ("apiregistration.k8s.io/v1",)
NEW_CLUSTER = (*OLD_CLUSTER, "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")


def covered(objects: list[Object]) -> set[tuple[str, str, str]]:
    """API groups, resources and operations to which the policy applies."""
    constraints = get_object(objects, POLICY)["spec"]["matchConstraints"]
    assert constraints.keys() == {"resourceRules"}
    assert all(rule["apiVersions"] == ["*"] for rule in constraints["resourceRules"])
    return {
        (group, resource, operation)
        for rule in constraints["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }


def writable(objects: list[Object]) -> set[tuple[str, str, str]]:
    """What the roles of the operator's service account, including those of hooks, allow it to write."""
    return {
        (group, resource, operation)
        for role in objects
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for operation in ADMISSION_OPERATIONS.get(verb, ())
        if group != "mlflow-operator.dev" and (group, resource) not in UNLABELLED
    }


@pytest.mark.parametrize("values", [{}, WATCHED_NAMESPACES], ids=["cluster-wide", "namespaced"])
def test_policy_covers_every_object_that_the_operator_may_write(values: Values) -> None:
    """A new rule of the role that allows to write also requires a rule of the policy, and vice versa."""
    objects = render(values)
    assert covered(objects) == writable(objects) | OWN_RESOURCES


def test_policy_covers_deletion_without_the_permission() -> None:
    """`deletion.allowed: false` does not change the policy."""
    objects = render({"deletion": {"allowed": False}})
    assert covered(objects) == covered(render())


def test_policy_is_enforced() -> None:
    """If the API server cannot evaluate it, the request is denied."""
    objects = render()
    policy, binding = get_object(objects, POLICY), get_object(objects, BINDING)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}


@pytest.mark.parametrize(
    ("values", "account"),
    [
        ({}, "mlflow-operator"),
        ({"fullnameOverride": "mine"}, "mine"),
        ({"serviceAccount": {"create": False, "name": "existing"}}, "existing"),
        ({"serviceAccount": {"create": False}}, "default"),
    ],
)
def test_policy_applies_to_the_service_account_of_the_pod(values: Values, account: str) -> None:
    """And to no other account."""
    objects = render(values)
    assert get_object(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account
    (condition,) = get_object(objects, POLICY)["spec"]["matchConditions"]
    assert (
        condition["expression"]
        == f"request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{account}'"
    )


def test_name_contains_namespace_and_release() -> None:
    """Namespaced operators may have the same name in two namespaces. The policy has no namespace."""
    for name, values in (("mlflow-operator", {}), ("mine", {"fullnameOverride": "mine"})):
        names = {obj["metadata"]["name"] for obj in render(values) if obj["kind"] in {POLICY, BINDING}}
        assert names == {f"{NAMESPACE}.{name}"}


def test_policy_requires_the_labels_that_the_operator_sets() -> None:
    """And names them in its message, of which a condition quotes the beginning."""
    policy = get_object(render(), POLICY)["spec"]
    variables = {variable["name"]: variable["expression"] for variable in policy["variables"]}
    for expression in (variables["hasLabels"], variables["hadLabels"]):
        assert f"'{labels.MANAGED_BY}'].orValue('') == '{labels.OPERATOR}'" in expression
        assert f"'{labels.SERVER}']" in expression
    of_resources, validation = policy["validations"]
    for text in (f"{labels.MANAGED_BY}={labels.OPERATOR}", labels.SERVER, "admissionPolicy.enabled"):
        assert text in validation["message"]
    other_text = 'deployments.apps "tracking" is forbidden:  with binding  denied request: '
    policy_name = f"ValidatingAdmissionPolicy '{NAMESPACE}.mlflow-operator' '{NAMESPACE}.mlflow-operator'"
    for message in (of_resources["message"], validation["message"]):
        assert len(other_text + policy_name + message) <= MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("values", "api_versions", "is_installed"),
    [
        ({}, (), True),
        ({}, NEW_CLUSTER, True),
        ({}, OLD_CLUSTER, False),
        ({"admissionPolicy": {"enabled": False}}, NEW_CLUSTER, False),
    ],
    ids=["helm template", "cluster", "cluster without the API", "disabled"],
)
def test_policy_is_optional(values: Values, api_versions: tuple[str, ...], is_installed: bool) -> None:
    """It is skipped if the cluster does not have the API. `helm template` does not know the APIs of the cluster."""
    found = {obj["kind"] for obj in render(values, api_versions=api_versions)} & {POLICY, BINDING}
    assert found == ({POLICY, BINDING} if is_installed else set())
