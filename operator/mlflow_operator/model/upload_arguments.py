"""Arguments of boto3 for uploads, as JSON: what MLflow, the backups and the operator's access check send."""

import json
from collections.abc import Mapping, Sequence

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.mlflow_env import UPLOAD_ARGUMENTS_ENV
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_REFERENCE = "$("
"""The kubelet replaces references to other variables in a value, so that only the pods know it."""


def merge(encryption: Mapping[str, str], user_env: Sequence[Object]) -> str:
    """Return the arguments `encryption` of the spec and those of the user's variable in `spec.env`, which win.

    The result is empty if there are none, and if the user's value is in a Secret or ConfigMap or is not a JSON object:
    it cannot be merged, and the pods get it unchanged.
    """
    arguments: Object = dict(encryption)
    variable = _variable(user_env)
    if variable is not None:
        user_arguments = _parse(variable.get("value") or "")
        if user_arguments is None:
            return ""
        arguments |= user_arguments
    return json.dumps(arguments, sort_keys=True) if arguments else ""


def check(user_env: Sequence[Object]) -> None:
    """Raise ConfigurationError if the value in `spec.env` is not a JSON object. It does not check the arguments."""
    value = (_variable(user_env) or {}).get("value") or ""
    if value and _REFERENCE not in value and _parse(value) is None:
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f"The value of {UPLOAD_ARGUMENTS_ENV} in spec.env is not a JSON object, so all uploads of MLflow fail. "
            'Set it to an object such as {"StorageClass": "STANDARD_IA"}, or remove the variable.',
        )


def _variable(user_env: Sequence[Object]) -> Object | None:
    return next((variable for variable in user_env if variable["name"] == UPLOAD_ARGUMENTS_ENV), None)


def _parse(value: str) -> Object | None:
    """Return the JSON object, None if `value` is none, or is nested too deeply for Python's JSON parser."""
    try:
        arguments = json.loads(value)
        json.dumps(arguments)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
