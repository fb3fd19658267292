"""Sweep: nested runs, the choice of the best run under a constraint, and MLflow's errors.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "churn-sweep"
STEPS = (10, 20, 30)
SEED = 42


@dataclass(frozen=True)
class Config:
    """The parameters that a trial varies and logs."""

    learning_rate: float
    max_depth: int


GRID = [Config(rate, depth) for rate, depth in product((0.05, 0.2), (2, 4))]


def create_customers() -> list[pd.DataFrame | pd.Series]:
    """Return synthetic customers, of whom a fifth churn: inputs and labels for training and for testing."""
    features, labels = make_classification(
        n_samples=1500, n_features=8, n_informative=6, weights=[0.8, 0.2], random_state=SEED
    )
    table = pd.DataFrame(features, columns=[f"f{i}" for i in range(features.shape[1])])
    split: list[pd.DataFrame | pd.Series] = train_test_split(
        table, pd.Series(labels), test_size=0.3, stratify=labels, random_state=SEED
    )
    return split


def run_trial(config: Config, data: list[pd.DataFrame | pd.Series]) -> None:
    """Train and log one configuration in the active run."""
    inputs, test_inputs, labels, test_labels = data
    mlflow.log_params(asdict(config))
    model = HistGradientBoostingClassifier(**asdict(config), warm_start=True, random_state=SEED)
    for step in STEPS:
        model.set_params(max_iter=step).fit(inputs, labels)  # continues from the existing trees
        probabilities = model.predict_proba(test_inputs)[:, 1]
        mlflow.log_metric("val_log_loss", log_loss(test_labels, probabilities), step=step)
        mlflow.log_metric("val_auc", roc_auc_score(test_labels, probabilities), step=step)
    mlflow.log_metric("val_brier", brier_score_loss(test_labels, probabilities))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(test_inputs, model.predict_proba(test_inputs)),
        input_example=test_inputs.iloc[:3],
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",  # the default, skops, rejects trees
        pip_requirements=["scikit-learn"],  # otherwise MLflow infers them, which takes seconds per model
    )


def best_run(sweep: str, ceiling: float) -> pd.Series:
    """Return the run with the best AUC among those with a small Brier score. Raises SystemExit if there is none."""
    runs = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=f"attributes.status = 'FINISHED' and metrics.val_brier < {ceiling} "
        f"and metrics.val_auc > 0.5 and tags.mlflow.parentRunId = '{sweep}'",
        order_by=["metrics.val_auc DESC"],
    )
    if runs.empty:
        raise SystemExit(f"No run of {sweep} has a Brier score under {ceiling}.")
    return runs.iloc[0]


def error_message(call: Callable[[], object]) -> str:
    """Return the error message of a call that MLflow must reject. Raises AssertionError if it succeeds."""
    try:
        call()
    except MlflowException as error:
        return str(error)
    raise AssertionError("MLflow accepted a call that it must reject")


def check_errors() -> None:
    """A parameter cannot be changed, and a run that ends with an exception is FAILED."""
    with mlflow.start_run(run_name="twice"):
        mlflow.log_param("depth", 4)
        assert "Changing param values is not allowed" in error_message(lambda: mlflow.log_param("depth", 6))
    try:
        with mlflow.start_run(run_name="boom") as run:
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert mlflow.get_run(run.info.run_id).info.status == "FAILED"


def main() -> None:
    """Sweep, choose the best run, and use its model like a service would."""
    data = create_customers()
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="sweep") as sweep:
        mlflow.set_tag("grid", str(GRID))
        for number, config in enumerate(GRID):
            with mlflow.start_run(run_name=f"trial-{number:02d}", nested=True):
                run_trial(config, data)
    check_errors()

    best = best_run(sweep.info.run_id, ceiling=0.2)
    client = mlflow.MlflowClient()
    curve = client.get_metric_history(best.run_id, "val_auc")
    assert tuple(point.step for point in curve) == STEPS
    try:
        best_run(sweep.info.run_id, ceiling=0.0)
    except SystemExit as expected_error:
        print(expected_error)
    else:
        raise AssertionError("no model has a Brier score of 0, but one was chosen")

    model = mlflow.pyfunc.load_model(f"runs:/{best.run_id}/model")
    test_inputs, test_labels = data[1], data[3]
    assert model.metadata.get_input_schema().input_names() == list(test_inputs.columns)
    auc = roc_auc_score(test_labels, model.predict(test_inputs)[:, 1])
    assert np.isclose(auc, best["metrics.val_auc"]), "the loaded model predicts something else"
    assert "f0" in error_message(lambda: model.predict(test_inputs.drop(columns="f0")))
    print(
        f"best of {len(GRID)} trials: {best['tags.mlflow.runName']}, AUC {auc:.3f}; the loaded model has the same AUC."
    )


if __name__ == "__main__":
    main()
