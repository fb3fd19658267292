"""Promotion: two candidates are registered, and a gate decides which of them becomes the champion.

What a pipeline does on every change: train, register, and call gate.py, whose exit code lets the pipeline go on.
Plain MLflow client code. MLFLOW_TRACKING_URI says which server; nothing else is needed.
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
            pip_requirements=["scikit-learn"],  # spares MLflow the search for them
        )
    return str(logged.registered_model_version)


def gate(version: str) -> bool:
    """Whether the gate lets a version pass; it is a program of its own, as in a pipeline."""
    return subprocess.run([sys.executable, str(GATE), MODEL, version], check=False).returncode == 0


def main() -> None:
    """A good candidate passes; a bad one is refused and changes nothing."""
    mlflow.set_experiment(EXPERIMENT)
    client = mlflow.MlflowClient()
    good = register(make_pipeline(StandardScaler(), LogisticRegression()))
    assert gate(good), "the good model was refused"
    bad = register(DummyClassifier(strategy="constant", constant=0))
    assert not gate(bad), "the bad model was promoted"
    assert client.get_model_version_by_alias(MODEL, "champion").version == good
    verdicts = {v: client.get_model_version(MODEL, v).tags["gate"] for v in (good, bad)}
    assert verdicts == {good: "passed", bad: "refused"}
    print(f"{MODEL} {good} is the champion; {bad} was refused.")


if __name__ == "__main__":
    main()
