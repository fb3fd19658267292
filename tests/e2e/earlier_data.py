"""Logs data with the client of an earlier MLflow version, and checks that the current client can read all of it."""

import hashlib
import json
import tempfile
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts

from tests.e2e.kube import Object
from tests.e2e.server import Server

PROGRAM = Path(__file__).with_name("create_earlier_data.py").read_text(encoding="utf-8")
NAME = "taxi"
"""Name of the experiment and of the registered model."""


def log_data(server: Server) -> Object:
    """Log data in the server's pod with the client of the version that runs there; returns what the program prints."""
    pod, address = server.pod()["metadata"]["name"], server.status["url"]
    output = server.kube.kubectl("exec", pod, "-c", "mlflow", "--", "python3", "-c", PROGRAM, address, NAME)
    data: Object = json.loads(output.strip().splitlines()[-1])
    return data


def check_data(server: Server, data: Object) -> None:
    """Check that the current client finds the experiment, run, model, alias and files."""
    client = mlflow.MlflowClient(server.url, server.url)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment
    assert experiment.tags["team"] == "taxi"
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (data["run"], "FINISHED")
    assert (run.data.params["depth"], run.data.tags["purpose"]) == ("4", "test")
    history = client.get_metric_history(data["run"], "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
    assert client.get_registered_model(NAME).description == "logged by an earlier version"
    version = client.get_model_version_by_alias(NAME, "champion")
    assert (str(version.version), version.run_id) == (data["version"], data["run"])
    # by name and alias this process would ask the server that it used last
    model = client.get_model_version_download_uri(NAME, str(version.version))
    for folder in (f"runs:/{data['run']}/model", model):
        assert _checksum(server, f"{folder}/weights.bin") == data["checksum"], folder


def _checksum(server: Server, uri: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = download_artifacts(uri, dst_path=folder, tracking_uri=server.url)
        return hashlib.sha256(Path(found).read_bytes()).hexdigest()
