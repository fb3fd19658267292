"""Taxi: a hyperparameter search over 15 forests; the best 5 are tested on unseen trips, and the best is registered.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from hyperopt import STATUS_OK, Trials, fmin, hp, tpe
from hyperopt.pyll import scope
from mlflow.entities import ViewType
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.metrics import root_mean_squared_error

SEARCH = "taxi-search"
FINALISTS = "taxi-finalists"
MODEL = "taxi-duration"
ALIAS = "Staging"
TRIALS, TOP = 15, 5
SEED = 42
NUMBERS = ("max_depth", "n_estimators", "min_samples_split", "min_samples_leaf", "random_state")
SPACE = {
    "max_depth": scope.int(hp.quniform("max_depth", 1, 20, 1)),
    "n_estimators": scope.int(hp.quniform("n_estimators", 5, 20, 1)),
    "min_samples_split": scope.int(hp.quniform("min_samples_split", 2, 10, 1)),
    "min_samples_leaf": scope.int(hp.quniform("min_samples_leaf", 1, 4, 1)),
    "random_state": SEED,
}
Trip = dict[str, str | float]


@dataclass(frozen=True)
class Month:
    """The trips of a month as a model's inputs, and their durations in minutes."""

    inputs: Any
    minutes: np.ndarray


def create_trips(month: int, count: int = 600) -> tuple[list[Trip], np.ndarray]:
    """Return synthetic trips between zones, and their durations in minutes, which are longer in rush hours."""
    random = np.random.default_rng([SEED, month])
    zones = random.integers(1, 9, size=(count, 2))
    miles = np.abs(zones[:, 0] - zones[:, 1]) + random.exponential(1.5, count)
    hours = random.integers(0, 24, count)
    slowdown = np.where(np.isin(hours, (8, 9, 17, 18)), 1.6, 1.0)
    minutes = 3 + 4 * miles * slowdown + random.normal(0, 2, count)
    trip_list: list[Trip] = [
        {"from_to": f"{start}_{end}", "miles": float(far), "hour": float(hour)}
        for (start, end), far, hour in zip(zones, miles, hours, strict=True)
    ]
    return trip_list, minutes


def search(train: Month, validation: Month, purpose: str) -> None:
    """Search for the best hyperparameters; logs a run per trial with its parameters and its RMSE."""
    mlflow.set_experiment(SEARCH)

    def objective(params: Mapping[str, int]) -> dict[str, object]:
        with mlflow.start_run():
            mlflow.set_tag("search", purpose)
            mlflow.log_params(dict(params))
            forest = RandomForestRegressor(**params).fit(train.inputs, train.minutes)
            rmse = root_mean_squared_error(validation.minutes, forest.predict(validation.inputs))
            mlflow.log_metric("rmse", rmse)
        return {"loss": rmse, "status": STATUS_OK}

    fmin(
        fn=objective,
        space=SPACE,
        algo=tpe.suggest,
        max_evals=TRIALS,
        trials=Trials(),
        rstate=np.random.default_rng(SEED),
        show_progressbar=False,
    )


def train_finalist(params: Mapping[str, str], months: Mapping[str, Month], vectorizer: Path) -> None:
    """Train a candidate again, and log everything for serving: the model, and the vectorizer for its inputs."""
    with mlflow.start_run():
        forest = RandomForestRegressor(**{name: int(params[name]) for name in NUMBERS})
        forest.fit(months["train"].inputs, months["train"].minutes)
        for name in ("validation", "test"):
            month = months[name]
            mlflow.log_metric(
                f"{name}_rmse", root_mean_squared_error(month.minutes, forest.predict(month.inputs))
            )
        mlflow.log_artifact(str(vectorizer), artifact_path="model")
        mlflow.sklearn.log_model(
            forest,
            artifact_path="model",
            serialization_format="cloudpickle",  # the default, skops, rejects trees
            pip_requirements=["scikit-learn"],  # otherwise MLflow infers them, which takes seconds per model
        )


def main() -> None:
    """Search, test the best candidates on an unseen month, register the best model, and use the registered model."""
    vectorizer = DictVectorizer()
    trips, minutes = create_trips(1)
    months = {"train": Month(vectorizer.fit_transform(trips), minutes)}
    for number, name in ((2, "validation"), (3, "test")):
        trips, minutes = create_trips(number)
        months[name] = Month(vectorizer.transform(trips), minutes)

    with tempfile.TemporaryDirectory() as folder:
        vectorizer_file = Path(folder, "dv.pkl")
        vectorizer_file.write_bytes(pickle.dumps(vectorizer))

        purpose = Path(folder).name  # distinguishes the runs of this search from those of earlier ones
        search(months["train"], months["validation"], purpose)
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(SEARCH)
        assert experiment is not None
        run_filter = {
            "experiment_ids": [experiment.experiment_id],
            "filter_string": f"tags.search = '{purpose}'",
        }
        assert len(client.search_runs(**run_filter)) == TRIALS
        best = client.search_runs(
            **run_filter, run_view_type=ViewType.ACTIVE_ONLY, max_results=TOP, order_by=["metrics.rmse ASC"]
        )
        assert len(best) == TOP
        print(f"{TRIALS} trials; RMSE of the best {TOP}: {[round(r.data.metrics['rmse'], 2) for r in best]}")

        finalists = mlflow.set_experiment(FINALISTS)
        for run in best:
            train_finalist(run.data.params, months, vectorizer_file)

    (winner,) = client.search_runs(
        [finalists.experiment_id], order_by=["metrics.test_rmse ASC"], max_results=1
    )
    version = mlflow.register_model(f"runs:/{winner.info.run_id}/model", MODEL)
    client.set_registered_model_alias(MODEL, ALIAS, version.version)

    forest = mlflow.sklearn.load_model(f"models:/{MODEL}@{ALIAS}")
    saved_vectorizer = pickle.loads(  # noqa: S301  the file was written by this program
        Path(mlflow.artifacts.download_artifacts(f"runs:/{winner.info.run_id}/model/dv.pkl")).read_bytes()
    )
    test = months["test"]
    rmse = root_mean_squared_error(test.minutes, forest.predict(test.inputs))
    assert np.isclose(rmse, winner.data.metrics["test_rmse"]), "the loaded model predicts something else"
    (minutes_predicted,) = forest.predict(
        saved_vectorizer.transform([{"from_to": "1_5", "miles": 4.0, "hour": 9.0}])
    )
    print(
        f"models:/{MODEL}@{ALIAS} is version {version.version}: "
        f"predicted duration of a trip of four miles: {minutes_predicted:.0f} minutes."
    )


if __name__ == "__main__":
    main()
