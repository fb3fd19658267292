"""Sweep: runs within a run, a choice under a ceiling, and what happens when something goes wrong.

Plain MLflow client code. MLFLOW_TRACKING_URI says which server; nothing else is needed.
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
    """All that a trial varies; logged as it is."""

    learning_rate: float
    max_depth: int


GRID = [Config(rate, depth) for rate, depth in product((0.05, 0.2), (2, 4))]


def customers() -> list[pd.DataFrame | pd.Series]:
    """Made-up customers, a fifth of whom leave: inputs and answers, to train and to judge by."""
    features, leaves = make_classification(
        n_samples=1500, n_features=8, n_informative=6, weights=[0.8, 0.2], random_state=SEED
    )
    table = pd.DataFrame(features, columns=[f"f{i}" for i in range(features.shape[1])])
    split: list[pd.DataFrame | pd.Series] = train_test_split(
        table, pd.Series(leaves), test_size=0.3, stratify=leaves, random_state=SEED
    )
    return split


def trial(config: Config, data: list[pd.DataFrame | pd.Series]) -> None:
    """One configuration, in the run that is open."""
    inputs, held_out, leaves, held_out_leaves = data
    mlflow.log_params(asdict(config))
    model = HistGradientBoostingClassifier(**asdict(config), warm_start=True, random_state=SEED)
    for step in STEPS:
        model.set_params(max_iter=step).fit(inputs, leaves)  # goes on from the trees it has
        likely = model.predict_proba(held_out)[:, 1]
        mlflow.log_metric("val_log_loss", log_loss(held_out_leaves, likely), step=step)
        mlflow.log_metric("val_auc", roc_auc_score(held_out_leaves, likely), step=step)
    mlflow.log_metric("val_brier", brier_score_loss(held_out_leaves, likely))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(held_out, model.predict_proba(held_out)),
        input_example=held_out.iloc[:3],
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",  # the default, skops, refuses trees
        pip_requirements=["scikit-learn"],  # spares MLflow the search for them, seconds a model
    )


def choose(sweep: str, ceiling: float) -> pd.Series:
    """The best run by AUC among those whose probabilities can be believed. SystemExit where there is none."""
    runs = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=f"attributes.status = 'FINISHED' and metrics.val_brier < {ceiling} "
        f"and metrics.val_auc > 0.5 and tags.mlflow.parentRunId = '{sweep}'",
        order_by=["metrics.val_auc DESC"],
    )
    if runs.empty:
        raise SystemExit(f"No run of {sweep} has a Brier score under {ceiling}.")
    return runs.iloc[0]


def refusal(call: Callable[[], object]) -> str:
    """With which words MLflow says no. AssertionError where it says yes."""
    try:
        call()
    except MlflowException as no:
        return str(no)
    raise AssertionError("MLflow let through what it should refuse")


def check_mistakes() -> None:
    """A parameter is written once, and a run that an exception ends is FAILED."""
    with mlflow.start_run(run_name="twice"):
        mlflow.log_param("depth", 4)
        assert "Changing param values is not allowed" in refusal(lambda: mlflow.log_param("depth", 6))
    try:
        with mlflow.start_run(run_name="boom") as run:
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert mlflow.get_run(run.info.run_id).info.status == "FAILED"


def main() -> None:
    """Sweep, choose, and use the model chosen as a service would."""
    data = customers()
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="sweep") as sweep:
        mlflow.set_tag("grid", str(GRID))
        for number, config in enumerate(GRID):
            with mlflow.start_run(run_name=f"trial-{number:02d}", nested=True):
                trial(config, data)
    check_mistakes()

    best = choose(sweep.info.run_id, ceiling=0.2)
    client = mlflow.MlflowClient()
    curve = client.get_metric_history(best.run_id, "val_auc")
    assert tuple(point.step for point in curve) == STEPS
    try:
        choose(sweep.info.run_id, ceiling=0.0)
    except SystemExit as none:
        print(none)
    else:
        raise AssertionError("no model is perfect, and yet one was chosen")

    model = mlflow.pyfunc.load_model(f"runs:/{best.run_id}/model")
    held_out, answers = data[1], data[3]
    assert model.metadata.get_input_schema().input_names() == list(held_out.columns)
    auc = roc_auc_score(answers, model.predict(held_out)[:, 1])
    assert np.isclose(auc, best["metrics.val_auc"]), "the model that came back is another one"
    assert "f0" in refusal(lambda: model.predict(held_out.drop(columns="f0")))
    print(f"{best['tags.mlflow.runName']} of {len(GRID)} was chosen: AUC {auc:.3f}, loaded back the same.")


if __name__ == "__main__":
    main()
