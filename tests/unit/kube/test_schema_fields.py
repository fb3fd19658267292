"""Who manages which field is read right, or the wrong controller gets the blame."""

import json
from pathlib import Path

import pytest

from mlflow_operator.kube import schema_fields
from mlflow_operator.kube.objects import Object

IMAGE = "spec.template.spec.containers[server].image"


def record(manager: str, **below: Object) -> Object:
    return {"manager": manager, "operation": "Update", "fieldsV1": below}


def live(*records: Object) -> Object:
    return {"metadata": {"managedFields": [*records]}}


POD_IMAGE: Object = {
    "f:template": {"f:spec": {"f:containers": {'k:{"name":"server"}': {".": {}, "f:image": {}}}}}
}


@pytest.mark.parametrize(
    ("path", "who"),
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
def test_others_are_found_by_the_fields_they_set(path: str, who: list[str]) -> None:
    obj = live(
        record("other", **{"f:spec": POD_IMAGE}),
        record("scaler", **{"f:spec": {"f:replicas": {}}}),
        record("labeller", **{"f:metadata": {"f:labels": {".": {}, "f:a.b/c": {}}}}),
        record("us", **{"f:spec": {**POD_IMAGE, "f:replicas": {}}}),
    )
    assert schema_fields.managers(obj, [path], "us") == who


def test_entries_with_two_keys_are_called_as_drift_calls_them() -> None:
    obj = live(
        record("other", **{"f:spec": {"f:ports": {'k:{"port":5000,"protocol":"TCP"}': {"f:targetPort": {}}}}})
    )
    assert schema_fields.managers(obj, ["spec.ports[5000/TCP].targetPort"], "us") == ["other"]


def test_a_real_record_is_read_without_a_word_about_ourselves() -> None:
    stored = json.loads((Path(__file__).parent / "as_stored" / "deployment.json").read_text())["live"]
    assert schema_fields.managers(stored, [IMAGE], "somebody else") == ["mlflow-operator"]
    assert schema_fields.managers(stored, [IMAGE], "mlflow-operator") == []


def test_an_object_without_records_has_no_other_managers() -> None:
    assert schema_fields.managers({"metadata": {}}, ["spec"], "us") == []
    assert schema_fields.managers(live({"manager": "x"}), ["spec"], "us") == []
