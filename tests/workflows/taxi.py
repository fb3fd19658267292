"""Taxi: a search over fifteen forests, the best five tried on unseen trips, the best one registered by name.

Plain MLflow client code. MLFLOW_TRACKING_URI says which server; nothing else is needed.
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
    """The trips of a month as a model reads them, and how many minutes each took."""

    inputs: Any
    minutes: np.ndarray


def trips(month: int, count: int = 600) -> tuple[list[Trip], np.ndarray]:
    """Made-up trips between zones: farther is longer, and rush hours are slow."""
    random = np.random.default_rng([SEED, month])
    zones = random.integers(1, 9, size=(count, 2))
    miles = np.abs(zones[:, 0] - zones[:, 1]) + random.exponential(1.5, count)
    hours = random.integers(0, 24, count)
    slow = np.where(np.isin(hours, (8, 9, 17, 18)), 1.6, 1.0)
    minutes = 3 + 4 * miles * slow + random.normal(0, 2, count)
    told: list[Trip] = [
        {"from_to": f"{start}_{end}", "miles": float(far), "hour": float(hour)}
        for (start, end), far, hour in zip(zones, miles, hours, strict=True)
    ]
    return told, minutes


def search(train: Month, validation: Month, purpose: str) -> None:
    """A run for each trial: its parameters, and how far off the forest was."""
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


def try_finalist(params: Mapping[str, str], months: Mapping[str, Month], vectorizer: Path) -> None:
    """A candidate trained again, with all it takes to serve it: the model, and beside it what reads a trip."""
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
            serialization_format="cloudpickle",  # the default, skops, refuses trees
            pip_requirements=["scikit-learn"],  # spares MLflow the search for them, seconds a model
        )


def main() -> None:
    """Search, try the best on a month that none of them has seen, register, and use what is registered."""
    vectorizer = DictVectorizer()
    told, minutes = trips(1)
    months = {"train": Month(vectorizer.fit_transform(told), minutes)}
    for number, name in ((2, "validation"), (3, "test")):
        told, minutes = trips(number)
        months[name] = Month(vectorizer.transform(told), minutes)

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "dv.pkl")
        saved.write_bytes(pickle.dumps(vectorizer))

        purpose = Path(folder).name  # tells this search's runs from earlier ones'
        search(months["train"], months["validation"], purpose)
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(SEARCH)
        assert experiment is not None
        mine = {"experiment_ids": [experiment.experiment_id], "filter_string": f"tags.search = '{purpose}'"}
        assert len(client.search_runs(**mine)) == TRIALS
        best = client.search_runs(
            **mine, run_view_type=ViewType.ACTIVE_ONLY, max_results=TOP, order_by=["metrics.rmse ASC"]
        )
        assert len(best) == TOP
        print(f"{TRIALS} trials; the best five are off by {[round(r.data.metrics['rmse'], 2) for r in best]}")

        finalists = mlflow.set_experiment(FINALISTS)
        for run in best:
            try_finalist(run.data.params, months, saved)

    (winner,) = client.search_runs(
        [finalists.experiment_id], order_by=["metrics.test_rmse ASC"], max_results=1
    )
    version = mlflow.register_model(f"runs:/{winner.info.run_id}/model", MODEL)
    client.set_registered_model_alias(MODEL, ALIAS, version.version)

    forest = mlflow.sklearn.load_model(f"models:/{MODEL}@{ALIAS}")
    read = pickle.loads(  # noqa: S301  our own file, from our own run
        Path(mlflow.artifacts.download_artifacts(f"runs:/{winner.info.run_id}/model/dv.pkl")).read_bytes()
    )
    test = months["test"]
    rmse = root_mean_squared_error(test.minutes, forest.predict(test.inputs))
    assert np.isclose(rmse, winner.data.metrics["test_rmse"]), "the model that came back is another one"
    (guess,) = forest.predict(read.transform([{"from_to": "1_5", "miles": 4.0, "hour": 9.0}]))
    print(
        f"models:/{MODEL}@{ALIAS} is version {version.version}: a trip of four miles takes {guess:.0f} minutes."
    )


if __name__ == "__main__":
    main()
