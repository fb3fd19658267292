"""Housekeeping: a run that logs itself, and runs of last year that are found, deleted, and one of them taken back.

Plain MLflow client code. MLFLOW_TRACKING_URI says which server; nothing else is needed.
"""

from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
from mlflow.entities import ViewType
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier

EXPERIMENT = "iris-autolog"
OLD = timedelta(days=365)


def milliseconds(moment: datetime) -> int:
    """How MLflow counts time."""
    return int(moment.timestamp() * 1000)


def train_with_autolog() -> None:
    """One line, and parameters, metrics and the model log themselves."""
    flowers = load_iris()
    mlflow.sklearn.autolog()
    with mlflow.start_run(run_name="autolog") as run:
        model = GradientBoostingClassifier(n_estimators=5).fit(flowers.data, flowers.target)
    mlflow.sklearn.autolog(disable=True)

    logged = mlflow.get_run(run.info.run_id).data
    assert logged.params["n_estimators"] == "5"
    assert logged.metrics["training_accuracy_score"] > 0.9
    loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(loaded.predict(flowers.data), model.predict(flowers.data))
    print(f"autolog kept {len(logged.params)} parameters, {len(logged.metrics)} metrics and the model.")


def main() -> None:
    """Train; then clear away what is older than half a year."""
    experiment = mlflow.set_experiment(EXPERIMENT)
    train_with_autolog()

    client, now = mlflow.MlflowClient(), datetime.now(UTC)
    for days in range(3):
        old = client.create_run(
            experiment.experiment_id, start_time=milliseconds(now - OLD - timedelta(days))
        )
        client.log_metric(old.info.run_id, "accuracy", 0.5)
        client.set_terminated(old.info.run_id)

    where = f"attributes.start_time < {milliseconds(now - OLD / 2)}"
    found = client.search_runs([experiment.experiment_id], where)
    assert len(found) >= 3
    for run in found:
        client.delete_run(run.info.run_id)
    assert not client.search_runs([experiment.experiment_id], where), "deleted runs are still listed"
    deleted = {
        run.info.run_id
        for run in client.search_runs([experiment.experiment_id], where, run_view_type=ViewType.DELETED_ONLY)
    }
    assert deleted >= {run.info.run_id for run in found}
    left = client.search_runs([experiment.experiment_id])
    assert left, "young runs went with the old ones"

    client.restore_run(found[0].info.run_id)
    assert client.get_run(found[0].info.run_id).data.metrics == {"accuracy": 0.5}
    client.delete_run(found[0].info.run_id)
    print(f"{len(found)} old runs deleted, {len(left)} young ones kept; a deleted one came back whole.")


if __name__ == "__main__":
    main()
