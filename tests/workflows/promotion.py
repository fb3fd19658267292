"""Promotion: registers two candidates, and a gate decides which of them becomes the champion.

This is what a pipeline does for every change: train, register, and run gate.py, whose exit code decides whether the
pipeline continues. Plain MLflow client code. It needs no configuration except the server's URL in MLFLOW_TRACKING_URI.
"""

import subprocess
import sys
from pathlib import Path

import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

EXPERIMENT = "promotion"
MODEL = "promoted"
GATE = Path(__file__).with_name("gate.py")


def register(model: Pipeline | DummyClassifier) -> str:
    """Train, log and register; returns the version."""
    data = load_breast_cancer()
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model.fit(data.data, data.target),
            name="model",
            registered_model_name=MODEL,
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],  # otherwise MLflow infers them, which takes long
        )
    return str(logged.registered_model_version)


def passes_gate(version: str) -> bool:
    """Whether the version passes the gate, which is a separate program like in a pipeline."""
    return subprocess.run([sys.executable, str(GATE), MODEL, version], check=False).returncode == 0


def main() -> None:
    """A good candidate is promoted; a bad one is rejected and changes nothing."""
    mlflow.set_experiment(EXPERIMENT)
    client = mlflow.MlflowClient()
    good = register(make_pipeline(StandardScaler(), LogisticRegression()))
    assert passes_gate(good), "the good model was rejected"
    bad = register(DummyClassifier(strategy="constant", constant=0))
    assert not passes_gate(bad), "the bad model was promoted"
    assert client.get_model_version_by_alias(MODEL, "champion").version == good
    gate_tags = {v: client.get_model_version(MODEL, v).tags["gate"] for v in (good, bad)}
    assert gate_tags == {good: "passed", bad: "rejected"}
    print(f"{MODEL} {good} is the champion; {bad} was rejected.")


if __name__ == "__main__":
    main()
