"""MLflow workload outside the cluster: the plain MLflow client, which only has the server's URL."""

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
class LoggedData:
    """Ids and checksum of logged data, for checks later."""

    run_id: str
    experiment: str
    model: str
    version: str
    checksum: str


class Workload:
    """Logs and checks data on the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = mlflow.MlflowClient(tracking_uri=url, registry_uri=url)

    def log_data(self, name: str = "work") -> LoggedData:
        """Log a run with a parameter, a metric with history, a tag, a file and a registered model (alias champion)."""
        mlflow.set_tracking_uri(self.url)
        mlflow.set_experiment(name)
        model = LinearRegression().fit(INPUTS, INPUTS.sum(axis=1))
        with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
            mlflow.log_param("depth", 4)
            for step in range(3):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.set_tag("purpose", "test")
            file = Path(folder, "notes.bin")
            checksum = write_random(file, 64 * KIB)
            mlflow.log_artifact(str(file))
            logged = mlflow.sklearn.log_model(
                model,
                name="model",
                registered_model_name=name,
                serialization_format="cloudpickle",
                pip_requirements=["scikit-learn"],  # otherwise MLflow infers them, which takes long
            )
        version = str(logged.registered_model_version)
        self.client.set_registered_model_alias(name, "champion", version)
        return LoggedData(run.info.run_id, name, name, version, checksum)

    def check_data(self, data: LoggedData) -> None:
        """Check that all logged data can be read, and that the model can be loaded and predicts."""
        mlflow.set_tracking_uri(self.url)
        run = self.client.get_run(data.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.params == {"depth": "4"}
        assert run.data.tags["purpose"] == "test"
        history = self.client.get_metric_history(data.run_id, "loss")
        assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
        assert self.download(data.run_id, "notes.bin") == data.checksum
        assert self.client.get_model_version_by_alias(data.model, "champion").version == data.version
        for uri in (f"models:/{data.model}@champion", f"runs:/{data.run_id}/model"):
            model = mlflow.sklearn.load_model(uri)
            assert np.allclose(model.predict(INPUTS), INPUTS.sum(axis=1))

    def create_run(self) -> str:
        """Create an empty run in a new experiment; returns the run's id."""
        return str(
            self.client.create_run(self.client.create_experiment(f"e-{os.urandom(4).hex()}")).info.run_id
        )

    def experiment_names(self) -> set[str]:
        """Return the names of all experiments."""
        return {experiment.name for experiment in self.client.search_experiments()}

    def upload(self, run_id: str, name: str, size: int) -> str:
        """Log a file of `size` random bytes; returns its checksum."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            checksum = write_random(file, size)
            self.client.log_artifact(run_id, str(file))
        return checksum

    def download(self, run_id: str, path: str) -> str:
        """Download a file; returns its checksum."""
        with tempfile.TemporaryDirectory() as folder:
            found = download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=folder, tracking_uri=self.url
            )
            return checksum(Path(found))


def write_random(file: Path, size: int) -> str:
    """Fill a file with random bytes, which cannot be compressed; returns its checksum."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def requested_hosts() -> Iterator[set[str]]:
    """Collect the host and port of every HTTP request that this process sends inside the context."""
    hosts: set[str] = set()
    send = requests.Session.send

    def record_and_send(
        self: requests.Session, request: requests.PreparedRequest, **kwargs: object
    ) -> object:
        hosts.add(urlsplit(str(request.url)).netloc)
        return send(self, request, **kwargs)  # type: ignore[arg-type]

    requests.Session.send = record_and_send  # type: ignore[method-assign, assignment]
    try:
        yield hosts
    finally:
        requests.Session.send = send  # type: ignore[method-assign]
