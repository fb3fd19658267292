"""Drift between desired objects and objects as an API server (1.34) stored them.

`as_stored/*.json` contain the applied object (`desired`) and the stored object with all defaults (`live`).
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.kube import labels
from mlflow_operator.kube.apply import diff
from mlflow_operator.kube.apply.unmanaged_fields import removals
from mlflow_operator.kube.objects import Object

STORED = {path.stem: path for path in (Path(__file__).parent / "as_stored").glob("*.json")}


def stored(name: str) -> tuple[Object, Object]:
    pair = json.loads(STORED[name].read_text())
    return pair["desired"], pair["live"]


def container(obj: Object) -> Object:
    found: Object = obj["spec"]["template"]["spec"]["containers"][0]
    return found


def deployment_with(**members: Any) -> Object:
    pods = {"spec": {"containers": [{"name": "server", **members}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {"template": pods},
    }


@pytest.mark.parametrize("name", sorted(STORED))
def test_stored_object_has_no_drift(name: str) -> None:
    """What the API server adds, drops, sorts or rewrites is no drift; otherwise the operator would write forever."""
    desired, observed = stored(name)
    assert diff.drift(desired, observed) == []
    assert removals(desired, observed) == []


def test_stored_objects_cover_applied_kinds() -> None:
    kinds = {stored(name)[0]["kind"] for name in STORED}
    assert kinds >= {
        "Deployment",
        "StatefulSet",
        "Service",
        "ConfigMap",
        "Secret",
        "PersistentVolumeClaim",
        "Job",
    }


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda d: d["spec"].update(replicas=7), "spec.replicas"),
        (lambda d: d["spec"].pop("replicas"), "spec.replicas"),
        (lambda d: container(d).update(image="other:1"), "spec.template.spec.containers[server].image"),
        (lambda d: container(d).pop("args"), "spec.template.spec.containers[server].args"),
        (lambda d: container(d)["args"].reverse(), "spec.template.spec.containers[server].args"),
        (lambda d: container(d)["args"].append("--x"), "spec.template.spec.containers[server].args"),
        (
            lambda d: container(d)["env"][0].update(value="2"),
            "spec.template.spec.containers[server].env[A].value",
        ),
        (lambda d: container(d)["env"].pop(0), "spec.template.spec.containers[server].env[A]"),
        (
            lambda d: container(d)["resources"]["limits"].update(cpu="2001m"),
            "spec.template.spec.containers[server].resources.limits.cpu",
        ),
        (
            lambda d: d["spec"]["template"]["spec"].pop("automountServiceAccountToken"),
            "spec.template.spec.automountServiceAccountToken",
        ),
        (lambda d: d["spec"]["template"]["spec"].update(hostNetwork=True), "spec.template.spec.hostNetwork"),
        (lambda d: d["spec"]["template"]["spec"]["tolerations"].clear(), "spec.template.spec.tolerations"),
        (
            lambda d: d["metadata"]["labels"].pop("app.kubernetes.io/managed-by"),
            "metadata.labels[app.kubernetes.io/managed-by]",
        ),
    ],
)
def test_edit_is_reported_by_path(edit: Any, path: str) -> None:
    desired, observed = stored("deployment")
    edit(observed)
    assert diff.drift(desired, observed) == [path]


def test_fields_of_other_managers_are_not_drift() -> None:
    """`kubectl rollout restart`, the Deployment controller and service meshes annotate the operator's objects."""
    desired, observed = stored("deployment")
    observed["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    observed["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    observed["status"] = {"replicas": 0}
    assert diff.drift(desired, observed) == []


def test_order_of_list_map_entries_is_ignored() -> None:
    desired, observed = stored("deployment")
    for group in ("env", "volumeMounts"):
        container(observed)[group].reverse()
    observed["spec"]["template"]["spec"]["volumes"].reverse()
    assert diff.drift(desired, observed) == []


@pytest.mark.parametrize("empty", [None, {}, []])
def test_empty_value_equals_absent_field(empty: Any) -> None:
    assert diff.drift(deployment_with(securityContext=empty), deployment_with()) == []
    assert diff.drift(deployment_with(), deployment_with(securityContext=empty)) == []


def test_quantities_are_compared_by_value_only_in_quantity_fields() -> None:
    """An environment variable that changes from 0.5 to 500m has another value for the program that reads it."""
    desired, observed = (deployment_with(env=[{"name": "cpu", "value": value}]) for value in ("0.5", "500m"))
    assert diff.drift(desired, observed) == ["spec.template.spec.containers[server].env[cpu].value"]


def test_empty_string_in_string_map_is_a_value() -> None:
    desired, observed = stored("configmap")
    del observed["data"]["EMPTY"]
    assert diff.drift(desired, observed) == ["data.EMPTY"]


def test_string_data_is_compared_with_encoded_data() -> None:
    """The API server never returns `stringData`. It must not count as drift, but a changed value must."""
    desired, observed = stored("secret")
    assert diff.drift(desired, observed) == []
    observed["data"]["password"] = "b3RoZXI="
    assert diff.drift(desired, observed) == ["data.password"]


def test_number_does_not_equal_boolean() -> None:
    assert diff.drift(deployment_with(stdin=True), deployment_with(stdin=1)) != []


def test_results_contain_no_values() -> None:
    """They are logged and shown, and a value may be a password."""
    desired, observed = stored("secret")
    observed["data"] = {"password": "c2VjcmV0", "added": "c2VjcmV0"}
    results = diff.drift(desired, observed), [patch_op.field for patch_op in removals(desired, observed)]
    assert results == (["data.password", "data.user"], ["data.added"])


class TestDigest:
    def test_does_not_depend_on_key_order(self) -> None:
        desired, _ = stored("deployment")
        assert diff.digest(desired) == diff.digest(dict(reversed(desired.items())))

    def test_changes_when_a_field_is_removed(self) -> None:
        """No comparison with the observed object can detect this change."""
        desired, _ = stored("deployment")
        without_field = copy.deepcopy(desired)
        container(without_field).pop("envFrom")
        assert diff.digest(desired) != diff.digest(without_field)

    def test_does_not_include_its_own_annotation(self) -> None:
        desired, _ = stored("deployment")
        annotated = copy.deepcopy(desired)
        annotated["metadata"]["annotations"] = {labels.APPLIED_DIGEST: diff.digest(desired)}
        assert diff.digest(annotated) == diff.digest(desired)

    def test_raises_for_a_secret(self) -> None:
        """The digest of a weak password in an annotation reveals the password."""
        desired, _ = stored("secret")
        with pytest.raises(ValueError, match="Secret"):
            diff.digest(desired)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_object_has_no_drift_from_itself(value: Any) -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "spec": value}
    assert diff.drift(obj, copy.deepcopy(obj)) == []


@given(JSON, JSON)
def test_comparison_accepts_any_observed_value(desired_value: Any, observed_value: Any) -> None:
    """Another client may have written the observed object, so the comparison must not fail for any content."""
    desired, observed = (
        {"kind": "ConfigMap", "metadata": {}, "spec": value} for value in (desired_value, observed_value)
    )
    assert isinstance(diff.drift(desired, observed), list)


def test_removals_are_pointers_into_the_observed_object() -> None:
    desired, observed = stored("deployment")
    container(observed)["env"].insert(0, {"name": "X", "value": "1"})
    assert [patch_op.pointer for patch_op in removals(desired, observed)] == [
        "/spec/template/spec/containers/0/env/0"
    ]
