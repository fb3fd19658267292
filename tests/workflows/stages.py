"""Stages: moves a boosted model through all stages, from None to Archived, and loads it by stage and by version.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI. MLflow now prefers
aliases to stages, but still supports both.
"""

import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draws to files; no display is needed

import mlflow
import numpy as np
import xgboost
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "boosted"
MODEL = "boosted"
SEED = 42
PARAMS = {"n_estimators": 20, "max_depth": 3, "learning_rate": 0.3, "subsample": 0.8}


def log_importance(model: xgboost.XGBClassifier) -> None:
    """Log the feature importance as a table and as a figure."""
    with tempfile.TemporaryDirectory() as folder:
        table, picture = Path(folder, "feature_importance.csv"), Path(folder, "feature_importance.png")
        np.savetxt(table, model.feature_importances_, delimiter=",")
        figure, axes = plt.subplots()
        axes.bar(range(len(model.feature_importances_)), model.feature_importances_)
        figure.savefig(picture)
        plt.close(figure)
        mlflow.log_artifact(str(table))
        mlflow.log_artifact(str(picture))


def main() -> None:
    """Train and register, then move the version through the stages."""
    data = load_breast_cancer()
    inputs, test_inputs, labels, test_labels = train_test_split(data.data, data.target, random_state=SEED)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="boosted-v1"):
        mlflow.log_params(PARAMS)
        model = xgboost.XGBClassifier(**PARAMS, random_state=SEED, n_jobs=1).fit(inputs, labels)
        predicted, probabilities = model.predict(test_inputs), model.predict_proba(test_inputs)[:, 1]
        mlflow.log_metrics(
            {
                "accuracy": accuracy_score(test_labels, predicted),
                "f1_score": f1_score(test_labels, predicted),
                "auc_roc": roc_auc_score(test_labels, probabilities),
            }
        )
        log_importance(model)
        logged = mlflow.xgboost.log_model(
            model,
            name="model",
            registered_model_name=MODEL,
            pip_requirements=["xgboost", "scikit-learn"],  # otherwise MLflow infers them, which takes long
        )
    version = str(logged.registered_model_version)

    client = mlflow.MlflowClient()
    assert client.get_model_version(MODEL, version).current_stage == "None"
    for stage in ("Staging", "Production"):
        client.transition_model_version_stage(MODEL, version, stage, archive_existing_versions=True)
        (latest,) = client.get_latest_versions(MODEL, stages=[stage])
        assert latest.version == version
        by_stage = mlflow.pyfunc.load_model(f"models:/{MODEL}/{stage}")
        assert np.array_equal(by_stage.predict(test_inputs), predicted)
    client.transition_model_version_stage(MODEL, version, "Archived")
    assert not client.get_latest_versions(MODEL, stages=["Production"])

    by_version = mlflow.xgboost.load_model(f"models:/{MODEL}/{version}")
    assert np.allclose(by_version.predict_proba(test_inputs)[:, 1], probabilities), (
        "the loaded model predicts something else"
    )
    print(f"models:/{MODEL}/{version} went from None to Archived, and its predictions are unchanged.")


if __name__ == "__main__":
    main()
