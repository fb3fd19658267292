"""Arguments of boto3 for uploads, as JSON: what MLflow, the backups and the operator's access check send."""

import json
from collections.abc import Mapping, Sequence

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.mlflow_env import UPLOAD_ARGUMENTS_ENV


def merge(encryption: Mapping[str, str], user_env: Sequence[Object]) -> str:
    """Return the arguments `encryption` of the spec and those of the user's variable in `spec.env`, which win.

    The result is empty if there are none, and if the user's value is in a Secret or ConfigMap or is not a JSON object:
    it cannot be merged, and the pods get it unchanged.
    """
    arguments: Object = dict(encryption)
    variable = next((variable for variable in user_env if variable["name"] == UPLOAD_ARGUMENTS_ENV), None)
    if variable is not None:
        try:
            user_arguments = json.loads(variable.get("value") or "")
        except ValueError:
            return ""
        if not isinstance(user_arguments, dict):
            return ""
        arguments |= user_arguments
    return json.dumps(arguments, sort_keys=True) if arguments else ""
