"""Gate: promotes a registered version if it is good enough, as the last step of a pipeline.

    python gate.py MODEL VERSION

Exit code 0: the version is the champion now. 1: it stays what it was, and so does the champion.
Plain MLflow client code. MLFLOW_TRACKING_URI says which server; nothing else is needed.
"""

import sys

import mlflow
from mlflow.exceptions import MlflowException
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import f1_score

ALIAS = "champion"
FLOOR = 0.8
"""An F1 score below this is refused, whatever the champion's is."""


def score(uri: str) -> float:
    """How well a model does on the data that every candidate is judged by."""
    data = load_breast_cancer()
    return float(f1_score(data.target, mlflow.pyfunc.load_model(uri).predict(data.data)))


def champions_score(name: str) -> float:
    """What is to be beaten; nothing where there is no champion yet."""
    try:
        mlflow.MlflowClient().get_model_version_by_alias(name, ALIAS)
    except MlflowException as missing:
        if missing.error_code not in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}:
            raise
        return 0.0
    return score(f"models:/{name}@{ALIAS}")


def main(name: str, version: str) -> int:
    """Compare, and promote or refuse; the verdict is kept with the version."""
    client = mlflow.MlflowClient()
    candidate, champion = score(f"models:/{name}/{version}"), champions_score(name)
    good = candidate >= max(FLOOR, champion)
    client.set_model_version_tag(name, version, "gate", "passed" if good else "refused")
    if good:
        client.set_registered_model_alias(name, ALIAS, version)
    print(
        f"{name} {version}: F1 {candidate:.3f}, the champion's {champion:.3f}: {'promoted' if good else 'refused'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
