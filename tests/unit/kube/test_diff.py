"""What counts as drift, held against objects as a real API server (1.34) stored them.

`as_stored/*.json` hold what was sent (`desired`) and what came back (`live`), defaults and all.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.kube import diff, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.unmanaged_fields import removals

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
def test_at_rest_nothing_differs(name: str) -> None:
    """What the API server adds, drops, sorts or rewrites is no drift, or the operator would never rest."""
    desired, live = stored(name)
    assert diff.drift(desired, live) == []
    assert removals(desired, live) == []


def test_all_kinds_the_operator_applies_are_held_against_a_real_answer() -> None:
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
def test_each_edit_is_named_by_its_path(edit: Any, path: str) -> None:
    desired, live = stored("deployment")
    edit(live)
    assert diff.drift(desired, live) == [path]


def test_what_others_add_beside_ours_is_no_drift() -> None:
    """`kubectl rollout restart`, the deployment controller and mesh injectors annotate what is ours."""
    desired, live = stored("deployment")
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    live["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    live["status"] = {"replicas": 0}
    assert diff.drift(desired, live) == []


def test_order_of_named_entries_does_not_matter() -> None:
    desired, live = stored("deployment")
    for group in ("env", "volumeMounts"):
        container(live)[group].reverse()
    live["spec"]["template"]["spec"]["volumes"].reverse()
    assert diff.drift(desired, live) == []


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_empty_in_any_form_is_the_same_as_absent(nothing: Any) -> None:
    assert diff.drift(deployment_with(securityContext=nothing), deployment_with()) == []
    assert diff.drift(deployment_with(), deployment_with(securityContext=nothing)) == []


def test_text_that_looks_like_a_quantity_is_text_elsewhere() -> None:
    """An environment variable changed from 0.5 to 500m is another value to the program that reads it."""
    desired, live = (deployment_with(env=[{"name": "cpu", "value": value}]) for value in ("0.5", "500m"))
    assert diff.drift(desired, live) == ["spec.template.spec.containers[server].env[cpu].value"]


def test_an_empty_text_in_a_map_of_texts_is_a_value() -> None:
    desired, live = stored("configmap")
    del live["data"]["EMPTY"]
    assert diff.drift(desired, live) == ["data.EMPTY"]


def test_a_key_given_as_text_is_found_encoded() -> None:
    """`stringData` never comes back; it must not look like drift, and a changed value must."""
    desired, live = stored("secret")
    assert diff.drift(desired, live) == []
    live["data"]["password"] = "b3RoZXI="
    assert diff.drift(desired, live) == ["data.password"]


def test_a_number_is_never_taken_for_a_truth_value() -> None:
    assert diff.drift(deployment_with(stdin=True), deployment_with(stdin=1)) != []


def test_drift_and_corrections_name_no_value() -> None:
    """They are logged and shown: a value may be a password."""
    desired, live = stored("secret")
    live["data"] = {"password": "c2VjcmV0", "stranger": "c2VjcmV0"}
    told = diff.drift(desired, live), [correction.field for correction in removals(desired, live)]
    assert told == (["data.password", "data.user"], ["data.stranger"])


class TestDigest:
    def test_is_the_same_for_the_same_wish_in_another_order(self) -> None:
        desired, _ = stored("deployment")
        assert diff.digest(desired) == diff.digest(dict(reversed(desired.items())))

    def test_changes_when_a_field_is_dropped(self) -> None:
        """The one change that no comparison with the live object shows."""
        desired, _ = stored("deployment")
        fewer = copy.deepcopy(desired)
        container(fewer).pop("envFrom")
        assert diff.digest(desired) != diff.digest(fewer)

    def test_does_not_depend_on_itself(self) -> None:
        desired, _ = stored("deployment")
        noted = copy.deepcopy(desired)
        noted["metadata"]["annotations"] = {labels.APPLIED: diff.digest(desired)}
        assert diff.digest(noted) == diff.digest(desired)

    def test_is_refused_for_a_secret(self) -> None:
        """A digest of a guessable password in an annotation is the password."""
        desired, _ = stored("secret")
        with pytest.raises(ValueError, match="Secret"):
            diff.digest(desired)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_nothing_differs_from_itself(value: Any) -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "spec": value}
    assert diff.drift(obj, copy.deepcopy(obj)) == []


@given(JSON, JSON)
def test_no_shape_of_what_is_found_breaks_the_comparison(wanted: Any, found: Any) -> None:
    """Somebody else wrote the live object; whatever is in it gives an answer."""
    desired, live = ({"kind": "ConfigMap", "metadata": {}, "spec": value} for value in (wanted, found))
    assert isinstance(diff.drift(desired, live), list)


def test_strangers_are_pointers_into_the_live_object() -> None:
    desired, live = stored("deployment")
    container(live)["env"].insert(0, {"name": "X", "value": "1"})
    assert [correction.pointer for correction in removals(desired, live)] == [
        "/spec/template/spec/containers/0/env/0"
    ]
