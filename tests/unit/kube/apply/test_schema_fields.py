"""Field managers are read correctly, so that a conflict message names the right client."""

import json
from pathlib import Path

import pytest

from mlflow_operator.kube.apply import schema_fields
from mlflow_operator.kube.objects import Object

IMAGE = "spec.template.spec.containers[server].image"


def managed_fields_entry(manager: str, **fields: Object) -> Object:
    return {"manager": manager, "operation": "Update", "fieldsV1": fields}


def observed_object(*entries: Object) -> Object:
    return {"metadata": {"managedFields": [*entries]}}


POD_IMAGE: Object = {
    "f:template": {"f:spec": {"f:containers": {'k:{"name":"server"}': {".": {}, "f:image": {}}}}}
}


@pytest.mark.parametrize(
    ("path", "expected_managers"),
    [
        (IMAGE, ["other"]),
        ("spec.template.spec.containers[server]", ["other"]),
        (f"{IMAGE}Suffix", []),
        ("spec.template.spec.containers[server2].image", []),
        ("spec.replicas", ["scaler"]),
        ("spec", ["other", "scaler"]),
        ("metadata.labels[a.b/c]", ["labeller"]),
    ],
)
def test_managers_are_found_by_their_fields(path: str, expected_managers: list[str]) -> None:
    obj = observed_object(
        managed_fields_entry("other", **{"f:spec": POD_IMAGE}),
        managed_fields_entry("scaler", **{"f:spec": {"f:replicas": {}}}),
        managed_fields_entry("labeller", **{"f:metadata": {"f:labels": {".": {}, "f:a.b/c": {}}}}),
        managed_fields_entry("own", **{"f:spec": {**POD_IMAGE, "f:replicas": {}}}),
    )
    assert schema_fields.other_managers(obj, [path], "own") == expected_managers


def test_entry_with_two_keys_has_same_path_as_in_drift() -> None:
    obj = observed_object(
        managed_fields_entry(
            "other", **{"f:spec": {"f:ports": {'k:{"port":5000,"protocol":"TCP"}': {"f:targetPort": {}}}}}
        )
    )
    assert schema_fields.other_managers(obj, ["spec.ports[5000/TCP].targetPort"], "own") == ["other"]


def test_own_manager_is_left_out() -> None:
    stored = json.loads((Path(__file__).parent / "as_stored" / "deployment.json").read_text())["live"]
    assert schema_fields.other_managers(stored, [IMAGE], "another") == ["mlflow-operator"]
    assert schema_fields.other_managers(stored, [IMAGE], "mlflow-operator") == []


def test_object_without_managed_fields_has_no_managers() -> None:
    assert schema_fields.other_managers({"metadata": {}}, ["spec"], "own") == []
    assert schema_fields.other_managers(observed_object({"manager": "x"}), ["spec"], "own") == []
