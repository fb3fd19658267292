"""Iris: trains two random forests in one experiment, compares them, and loads the better one.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

import json
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draws to files; no display is needed

import mlflow
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "iris-classification"
SEED = 42


def log_files(model: RandomForestClassifier, features: np.ndarray, labels: np.ndarray) -> None:
    """Log a figure, a configuration and a folder of samples, each from files on disk."""
    with tempfile.TemporaryDirectory() as folder:
        figure, axes = plt.subplots()
        ConfusionMatrixDisplay.from_estimator(model, features, labels, ax=axes, cmap="Blues")
        picture = Path(folder, "confusion_matrix.png")
        figure.savefig(picture)
        plt.close(figure)
        mlflow.log_artifact(str(picture))

        config = Path(folder, "config.json")
        config.write_text(json.dumps({"model_type": "random_forest", "feature_count": features.shape[1]}))
        mlflow.log_artifact(str(config))

        samples = Path(folder, "samples")
        samples.mkdir()
        for label in np.unique(labels):
            np.savetxt(samples / f"class-{label}.csv", features[labels == label], delimiter=",")
        mlflow.log_artifacts(str(samples), artifact_path="samples")


def train(depth: int, data: list[np.ndarray]) -> None:
    """Train one forest and log it in the active run."""
    features, test_features, labels, test_labels = data
    mlflow.log_param("n_estimators", 5)
    mlflow.log_param("max_depth", depth)
    mlflow.log_param("random_state", SEED)
    model = RandomForestClassifier(n_estimators=5, max_depth=depth, random_state=SEED)
    model.fit(features, labels)
    predicted = model.predict(test_features)
    mlflow.log_metric("accuracy", accuracy_score(test_labels, predicted))
    mlflow.log_metric("f1_score", f1_score(test_labels, predicted, average="weighted"))
    log_files(model, test_features, test_labels)
    # MLflow's default format, skops, rejects trees unless each of their types is listed as trusted
    mlflow.sklearn.log_model(model, name="model", serialization_format="cloudpickle")


def main() -> None:
    """Train, compare, load the best model and predict with it."""
    flowers = load_iris()
    data = train_test_split(flowers.data, flowers.target, test_size=0.2, random_state=SEED)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="depth-sweep") as sweep:
        mlflow.set_tags({"purpose": "optimization", "data_version": "v1"})
        for depth in (1, 3):
            with mlflow.start_run(run_name=f"depth-{depth}", nested=True):
                train(depth, data)

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string=f"tags.mlflow.parentRunId = '{sweep.info.run_id}'",
        order_by=["metrics.accuracy DESC"],
    )
    print(f"{'run':<12} {'accuracy':<9} f1")
    for run in runs:
        score = run.data.metrics
        print(f"{run.info.run_name:<12} {score['accuracy']:<9.4f} {score['f1_score']:.4f}")

    best = runs[0]
    model = mlflow.sklearn.load_model(f"runs:/{best.info.run_id}/model")
    accuracy = accuracy_score(data[3], model.predict(data[1]))
    assert accuracy == best.data.metrics["accuracy"], "the loaded model predicts something else"
    samples = [file.path for file in client.list_artifacts(best.info.run_id, "samples")]
    assert len(samples) == len(flowers.target_names), f"logged three samples, found {samples}"
    print(f"best run: {best.info.run_name}; the loaded model has the same accuracy.")


if __name__ == "__main__":
    main()
