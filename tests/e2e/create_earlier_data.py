"""Program for a server's own pod: logs data with the client of that MLflow version. Prints its ids as JSON."""

import hashlib
import json
import os
import sys
import tempfile

import mlflow

url, name = sys.argv[1:]
mlflow.set_tracking_uri(url)
client = mlflow.MlflowClient()
experiment = client.create_experiment(name, tags={"team": "taxi"})
run = client.create_run(experiment, tags={"purpose": "test"}).info
client.log_param(run.run_id, "depth", 4)
for step in range(3):
    client.log_metric(run.run_id, "loss", 1 / (step + 1), step=step)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights.bin")
    content = os.urandom(65536)
    with open(path, "wb") as file:
        file.write(content)
    client.log_artifact(run.run_id, path, "model")
client.set_terminated(run.run_id)
client.create_registered_model(name, tags={"team": "taxi"}, description="logged by an earlier version")
version = client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id)
client.set_registered_model_alias(name, "champion", version.version)
logged = {"client": mlflow.__version__, "run": run.run_id, "checksum": hashlib.sha256(content).hexdigest()}
print(json.dumps({**logged, "version": str(version.version)}))
