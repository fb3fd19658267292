"""Gate: promotes a registered model version if it is good enough, as the last step of a pipeline.

    python gate.py MODEL VERSION

Exit code 0: the version was promoted to champion. 1: it was rejected, and the champion is unchanged.
Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

import sys

import mlflow
from mlflow.exceptions import MlflowException
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import f1_score

ALIAS = "champion"
MIN_SCORE = 0.8
"""Minimum F1 score of a champion, regardless of the current champion's score."""


def score(uri: str) -> float:
    """Return a model's F1 score on the evaluation data, which are the same for all candidates."""
    data = load_breast_cancer()
    return float(f1_score(data.target, mlflow.pyfunc.load_model(uri).predict(data.data)))


def champion_score(name: str) -> float:
    """Return the champion's F1 score, or 0 if there is no champion yet."""
    try:
        mlflow.MlflowClient().get_model_version_by_alias(name, ALIAS)
    except MlflowException as missing:
        if missing.error_code not in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}:
            raise
        return 0.0
    return score(f"models:/{name}@{ALIAS}")


def main(name: str, version: str) -> int:
    """Compare, and promote or reject the version; the result is stored as a tag of the version."""
    client = mlflow.MlflowClient()
    candidate, champion = score(f"models:/{name}/{version}"), champion_score(name)
    is_good = candidate >= max(MIN_SCORE, champion)
    client.set_model_version_tag(name, version, "gate", "passed" if is_good else "rejected")
    if is_good:
        client.set_registered_model_alias(name, ALIAS, version)
    print(
        f"{name} {version}: F1 {candidate:.3f}, champion {champion:.3f}: {'promoted' if is_good else 'rejected'}"
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
