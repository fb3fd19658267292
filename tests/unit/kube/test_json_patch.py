"""JSON patches."""

from mlflow_operator.kube import json_patch


def test_keys_of_a_pointer_are_escaped() -> None:
    assert json_patch.pointer("metadata", "annotations", "example.com/a~b") == (
        "/metadata/annotations/example.com~1a~0b"
    )


def test_optimistic_lock_tests_the_resource_version() -> None:
    obj = {"metadata": {"resourceVersion": "7"}}
    assert json_patch.unchanged(obj) == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
