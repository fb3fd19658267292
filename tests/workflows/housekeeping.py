"""Housekeeping: a run with autologging, and old runs that are searched, deleted and restored.

Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
from mlflow.entities import ViewType
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier

EXPERIMENT = "iris-autolog"
MAX_AGE = timedelta(days=365)


def to_milliseconds(moment: datetime) -> int:
    """Convert to MLflow's timestamps: milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def train_with_autolog() -> None:
    """Log parameters, metrics and the model by autologging."""
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
    print(f"autolog logged {len(logged.params)} parameters, {len(logged.metrics)} metrics and the model.")


def main() -> None:
    """Train; then delete all runs that are older than half a year."""
    experiment = mlflow.set_experiment(EXPERIMENT)
    train_with_autolog()

    client, now = mlflow.MlflowClient(), datetime.now(UTC)
    for days in range(3):
        old = client.create_run(
            experiment.experiment_id, start_time=to_milliseconds(now - MAX_AGE - timedelta(days))
        )
        client.log_metric(old.info.run_id, "accuracy", 0.5)
        client.set_terminated(old.info.run_id)

    old_runs_filter = f"attributes.start_time < {to_milliseconds(now - MAX_AGE / 2)}"
    old_runs = client.search_runs([experiment.experiment_id], old_runs_filter)
    assert len(old_runs) >= 3
    for run in old_runs:
        client.delete_run(run.info.run_id)
    assert not client.search_runs([experiment.experiment_id], old_runs_filter), (
        "deleted runs are still listed"
    )
    deleted = {
        run.info.run_id
        for run in client.search_runs(
            [experiment.experiment_id], old_runs_filter, run_view_type=ViewType.DELETED_ONLY
        )
    }
    assert deleted >= {run.info.run_id for run in old_runs}
    remaining = client.search_runs([experiment.experiment_id])
    assert remaining, "recent runs were deleted, too"

    client.restore_run(old_runs[0].info.run_id)
    assert client.get_run(old_runs[0].info.run_id).data.metrics == {"accuracy": 0.5}
    client.delete_run(old_runs[0].info.run_id)
    print(f"{len(old_runs)} old runs deleted, {len(remaining)} recent ones kept; a deleted run was restored.")


if __name__ == "__main__":
    main()
