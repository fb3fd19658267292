"""Churn: a typical training run, from its configuration to a registered model that predicts.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

import hashlib
import shutil
import subprocess
from dataclasses import asdict, dataclass

import matplotlib as mpl

mpl.use("Agg")  # draws to files; no display is needed

import mlflow
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from mlflow.models import infer_signature
from sklearn.calibration import CalibrationDisplay
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import ConfusionMatrixDisplay, brier_score_loss, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "churn-model"
MODEL = "churn"
ALIAS = "champion"


@dataclass(frozen=True)
class Config:
    """All parameters of the training. They are logged unchanged, so that the logged values are those that were used."""

    seed: int = 42
    samples: int = 8000
    test_size: float = 0.2
    learning_rate: float = 0.1
    max_depth: int = 4
    max_iter: int = 200
    l2_regularization: float = 1.0


def create_customers(config: Config) -> pd.DataFrame:
    """Return synthetic customers, of whom a fifth churn."""
    features, labels = make_classification(
        n_samples=config.samples,
        n_features=12,
        n_informative=6,
        weights=[0.8, 0.2],
        random_state=config.seed,
    )
    table = pd.DataFrame(features, columns=[f"f{i}" for i in range(features.shape[1])])
    return table.assign(churned=labels)


def provenance(table: pd.DataFrame) -> dict[str, str]:
    """Return tags with the code version and the data version of a run."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = ""
    if shutil.which("git"):  # container images rarely have git
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    digest = hashlib.sha256(pd.util.hash_pandas_object(table).to_numpy().tobytes()).hexdigest()
    return {"git_sha": commit or "none", "data_hash": digest[:12], "model_family": "hist_gradient_boosting"}


def log_plots(model: HistGradientBoostingClassifier, inputs: pd.DataFrame, labels: pd.Series) -> None:
    """Log plots for the evaluation of the model."""
    for name, display in (("confusion_matrix", ConfusionMatrixDisplay), ("calibration", CalibrationDisplay)):
        figure, axes = plt.subplots(figsize=(4, 4))
        display.from_estimator(model, inputs, labels, ax=axes)
        mlflow.log_figure(figure, f"plots/{name}.png")
        plt.close(figure)
    mlflow.log_dict({"feature_names": list(inputs.columns)}, "feature_names.json")


def train(config: Config) -> tuple[str, pd.DataFrame, np.ndarray]:
    """Train and register a model. Returns its registered version, the test inputs, and its predictions for them."""
    table = create_customers(config)
    inputs, test_inputs, labels, test_labels = train_test_split(
        table.drop(columns="churned"),
        table["churned"],
        test_size=config.test_size,
        stratify=table["churned"],
        random_state=config.seed,
    )
    mlflow.log_params(asdict(config))
    mlflow.set_tags(provenance(table))
    model = HistGradientBoostingClassifier(
        learning_rate=config.learning_rate,
        max_depth=config.max_depth,
        l2_regularization=config.l2_regularization,
        warm_start=True,
        random_state=config.seed,
    )
    for step in range(10, config.max_iter + 1, 10):
        model.max_iter = step  # with warm_start it continues from the existing trees
        model.fit(inputs, labels)
        probabilities = model.predict_proba(test_inputs)[:, 1]
        mlflow.log_metric("val_log_loss", log_loss(test_labels, probabilities), step=step)
        mlflow.log_metric("val_auc", roc_auc_score(test_labels, probabilities), step=step)
    mlflow.log_metrics(
        {
            "val_f1": f1_score(test_labels, probabilities > 0.5),
            "val_brier": brier_score_loss(test_labels, probabilities),
        }
    )
    log_plots(model, test_inputs, test_labels)
    predictions = model.predict_proba(test_inputs)
    logged = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(test_inputs, predictions),
        input_example=test_inputs.iloc[:3],
        pyfunc_predict_fn="predict_proba",  # predict returns probabilities, like in the signature
        serialization_format="cloudpickle",  # the default, skops, rejects trees
        registered_model_name=MODEL,
    )
    return str(logged.registered_model_version), test_inputs, predictions


def main() -> None:
    """Train, set the alias champion to the new version, and load the model by the alias, like another program would."""
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="churn-hgb") as run:
        version, inputs, predictions = train(Config())

    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, ALIAS, version)
    curve = client.get_metric_history(run.info.run_id, "val_auc")
    print(f"run {run.info.run_id}: AUC {curve[-1].value:.4f} after {len(curve)} steps")

    best = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string="attributes.status = 'FINISHED' and metrics.val_brier < 0.1",
        order_by=["metrics.val_auc DESC"],
        max_results=1,
    )
    assert not best.empty, "the search by metrics does not find the finished run"

    champion = mlflow.pyfunc.load_model(f"models:/{MODEL}@{ALIAS}")
    assert champion.metadata.get_input_schema().input_names() == list(inputs.columns)
    assert np.allclose(champion.predict(inputs), predictions), "the loaded model predicts something else"
    print(
        f"models:/{MODEL}@{ALIAS} is version {version}; the loaded model gives the same {len(inputs)} predictions."
    )


if __name__ == "__main__":
    main()
