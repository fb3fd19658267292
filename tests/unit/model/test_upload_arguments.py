"""Arguments of uploads from the spec and from the user's environment."""

import json

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.upload_arguments import check, merge
from mlflow_operator.status.errors import ConfigurationError

KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "tracking"}
NAME = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"


@pytest.mark.parametrize(
    ("encryption", "variable", "expected"),
    [
        ({}, None, None),
        (KMS, None, KMS),
        ({}, {"value": '{"StorageClass": "STANDARD_IA"}'}, {"StorageClass": "STANDARD_IA"}),
        (KMS, {"value": '{"SSEKMSKeyId": "own"}'}, {**KMS, "SSEKMSKeyId": "own"}),
        (KMS, {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, None),
        (KMS, {"value": "{"}, None),
        (KMS, {"value": "[]"}, None),
    ],
    ids=["none", "encryption", "user", "both", "Secret", "invalid", "list"],
)
def test_arguments_of_the_user_take_precedence(
    encryption: dict[str, str], variable: Object | None, expected: Object | None
) -> None:
    """A value that the operator cannot merge reaches the pods unchanged."""
    env = [{"name": NAME, **variable}] if variable else []
    merged = merge(encryption, env)
    assert (json.loads(merged) if merged else None) == expected


NO_OBJECTS = ["{", "[]", '"text"', "1", "null", "[" * 8192, '{"a": ' * 1300, "9" * 5000]
"""The last ones raise a RecursionError and a ValueError of Python's limit for integers."""


@pytest.mark.parametrize("value", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_value_that_is_no_object_is_reported_with_its_consequence(value: str) -> None:
    """MLflow fails with each upload."""
    env = [{"name": NAME, "value": value}]
    assert not merge(KMS, env)
    with pytest.raises(
        ConfigurationError, match=f"value of {NAME} in spec.env is not a JSON object, so all uploads"
    ):
        check(env)


@pytest.mark.parametrize(
    "variable",
    [
        {"value": "{}"},
        {"value": ""},
        {"value": '{"StorageClass": ["checked by the client"]}'},
        {"value": "$(ARGUMENTS)"},
        {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ],
    ids=["empty object", "empty", "object", "other variable", "Secret"],
)
def test_value_that_may_be_an_object_is_not_reported(variable: Object) -> None:
    """MLflow ignores an empty value. Only the pods know values of other objects and variables."""
    check([{"name": NAME, **variable}])
    check([])
