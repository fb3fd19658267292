"""After an adoption, the operator is the only owner of the fields that it applies."""

from mlflow_operator.kube.apply.field_ownership import without_shared_fields
from mlflow_operator.kube.objects import Object

APPLIED: Object = {
    "manager": "mlflow-operator",
    "operation": "Apply",
    "fieldsV1": {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}, "f:args": {}}},
        },
    },
}
STATUS: Object = {
    "manager": "kube-controller-manager",
    "operation": "Update",
    "subresource": "status",
    "fieldsV1": {"f:status": {"f:replicas": {}}},
}


def test_other_managers_keep_only_their_own_fields() -> None:
    restorer: Object = {
        "manager": "velero-server",
        "operation": "Update",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:velero.io/restore-name": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}, "f:args": {"f:x": {}}}},
            },
        },
    }
    obj = {"metadata": {"managedFields": [APPLIED, restorer, STATUS]}}
    kept: Object = {"f:metadata": {"f:labels": {".": {}, "f:velero.io/restore-name": {}}}}
    assert without_shared_fields(obj, "mlflow-operator") == [APPLIED, {**restorer, "fieldsV1": kept}, STATUS]


def test_manager_without_remaining_fields_is_removed() -> None:
    restorer = {**APPLIED, "manager": "kubectl", "operation": "Update"}
    obj = {"metadata": {"managedFields": [restorer, APPLIED, STATUS]}}
    assert without_shared_fields(obj, "mlflow-operator") == [APPLIED, STATUS]


def test_nothing_changes_without_shared_fields() -> None:
    other = {**APPLIED, "manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {"f:x": {}}}}
    assert without_shared_fields({"metadata": {"managedFields": [APPLIED, other]}}, "mlflow-operator") is None
    assert without_shared_fields({"metadata": {}}, "mlflow-operator") is None
