"""Arguments of uploads from the spec and from the user's environment."""

import json

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.upload_arguments import merge

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
