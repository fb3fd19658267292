"""What teams logged with an earlier version, by the client of its time, and whether it is all there later."""

import hashlib
import json
import tempfile
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts

from tests.e2e.kube import Object
from tests.e2e.server import Server

BEFORE = Path(__file__).with_name("before.py").read_text(encoding="utf-8")
NAME = "taxi"
"""Of the experiment, and of the registered model."""


def logged(server: Server) -> Object:
    """What the version that runs logs with its own client, in its own pod."""
    pod, address = server.pod()["metadata"]["name"], server.status["url"]
    said = server.kube.kubectl("exec", pod, "-c", "mlflow", "--", "python3", "-c", BEFORE, address, NAME)
    found: Object = json.loads(said.strip().splitlines()[-1])
    return found


def finds(server: Server, work: Object) -> None:
    """All of it is there for the client of today: experiment, run, model, alias, files."""
    client = mlflow.MlflowClient(server.url, server.url)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment
    assert experiment.tags["team"] == "taxi"
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (work["run"], "FINISHED")
    assert (run.data.params["depth"], run.data.tags["purpose"]) == ("4", "test")
    history = client.get_metric_history(work["run"], "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
    assert client.get_registered_model(NAME).description == "of before"
    version = client.get_model_version_by_alias(NAME, "champion")
    assert (str(version.version), version.run_id) == (work["version"], work["run"])
    # by name and alias this process would ask whatever server it was told of last
    model = client.get_model_version_download_uri(NAME, str(version.version))
    for folder in (f"runs:/{work['run']}/model", model):
        assert _sum(server, f"{folder}/weights.bin") == work["sum"], folder


def _sum(server: Server, uri: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = download_artifacts(uri, dst_path=folder, tracking_uri=server.url)
        return hashlib.sha256(Path(found).read_bytes()).hexdigest()
