"""A data scientist outside the cluster, with the plain MLflow client and nothing but the server's URL."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import numpy as np
import requests
from mlflow.artifacts import download_artifacts
from sklearn.linear_model import LinearRegression

KIB, MIB = 1024, 1024 * 1024
INPUTS = np.arange(12.0).reshape(6, 2)


@dataclass(frozen=True)
class Work:
    """What was logged, so that it can be asked for later."""

    run: str
    experiment: str
    model: str
    version: str
    sum: str


class Scientist:
    """Works against the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = mlflow.MlflowClient(tracking_uri=url, registry_uri=url)

    def work(self, name: str = "work") -> Work:
        """A run with a parameter, a metric's history, a tag, a file and a model that is registered as champion."""
        mlflow.set_tracking_uri(self.url)
        mlflow.set_experiment(name)
        model = LinearRegression().fit(INPUTS, INPUTS.sum(axis=1))
        with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
            mlflow.log_param("depth", 4)
            for step in range(3):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.set_tag("purpose", "test")
            file = Path(folder, "notes.bin")
            checksum = write(file, 64 * KIB)
            mlflow.log_artifact(str(file))
            logged = mlflow.sklearn.log_model(
                model,
                name="model",
                registered_model_name=name,
                serialization_format="cloudpickle",
                pip_requirements=["scikit-learn"],  # spares MLflow the search for them
            )
        version = str(logged.registered_model_version)
        self.client.set_registered_model_alias(name, "champion", version)
        return Work(run.info.run_id, name, name, version, checksum)

    def finds(self, work: Work) -> None:
        """Everything that was logged is there, and the model comes back and predicts."""
        mlflow.set_tracking_uri(self.url)
        run = self.client.get_run(work.run)
        assert run.info.status == "FINISHED"
        assert run.data.params == {"depth": "4"}
        assert run.data.tags["purpose"] == "test"
        history = self.client.get_metric_history(work.run, "loss")
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
        assert self.download(work.run, "notes.bin") == work.sum
        assert self.client.get_model_version_by_alias(work.model, "champion").version == work.version
        for uri in (f"models:/{work.model}@champion", f"runs:/{work.run}/model"):
            model = mlflow.sklearn.load_model(uri)
            assert np.allclose(model.predict(INPUTS), INPUTS.sum(axis=1))

    def run(self) -> str:
        """An empty run's id."""
        return str(
            self.client.create_run(self.client.create_experiment(f"e-{os.urandom(4).hex()}")).info.run_id
        )

    def experiments(self) -> set[str]:
        """The names of all it sees."""
        return {experiment.name for experiment in self.client.search_experiments()}

    def upload(self, run: str, name: str, size: int) -> str:
        """Logs a file of `size` bytes; returns its checksum."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            checksum = write(file, size)
            self.client.log_artifact(run, str(file))
        return checksum

    def download(self, run: str, path: str) -> str:
        """Fetches a file; returns its checksum."""
        with tempfile.TemporaryDirectory() as folder:
            found = download_artifacts(run_id=run, artifact_path=path, dst_path=folder, tracking_uri=self.url)
            return checksum(Path(found))


def write(file: Path, size: int) -> str:
    """Fills a file with what no compression makes smaller; returns its checksum."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def checksum(file: Path) -> str:
    """SHA-256 of a file of any size."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def hosts_asked() -> Iterator[set[str]]:
    """The host and port of every HTTP request that this process makes meanwhile."""
    asked: set[str] = set()
    send = requests.Session.send

    def recorded(self: requests.Session, request: requests.PreparedRequest, **kwargs: object) -> object:
        asked.add(urlsplit(str(request.url)).netloc)
        return send(self, request, **kwargs)  # type: ignore[arg-type]

    requests.Session.send = recorded  # type: ignore[method-assign, assignment]
    try:
        yield asked
    finally:
        requests.Session.send = send  # type: ignore[method-assign]
