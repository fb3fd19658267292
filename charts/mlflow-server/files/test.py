"""What `helm test` runs in a pod beside the server: a run with an artifact goes in and comes back."""

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

WAIT = 240  # seconds: below Helm's own patience, so that the reason is told
EXPERIMENT = "helm-test"

# A broken server is to be heard of at once, and nobody is to be told of this test.
os.environ.update(
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
    MLFLOW_HTTP_REQUEST_TIMEOUT="60",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    GIT_PYTHON_REFRESH="quiet",
)


def version(uri):
    """The server's version, as soon as it answers."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            with urllib.request.urlopen(f"{uri}/version", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(
                    f"FAILED  {uri} does not answer ({error}). The MLflowServer says why: kubectl describe mls"
                )
        time.sleep(1)


def main():
    """Says each step once it is done; the first that fails ends it with exit code 1."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    print(f"waiting for {uri}")
    print(f"ok  it answers: MLflow {version(uri)}")

    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    if found and found.lifecycle_stage == "deleted":
        client.restore_experiment(experiment)
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "asked-by", "helm test")
    client.log_metric(run, "answer", 42.0)
    print(f"ok  a run is logged: {run}")

    content = os.urandom(256 * 1024)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "artifact.bin")
        file.write_bytes(content)
        client.log_artifact(run, str(file))
    client.set_terminated(run)
    print("ok  an artifact is logged")

    data = client.get_run(run).data
    if (data.params, data.metrics) != ({"asked-by": "helm test"}, {"answer": 42.0}):
        sys.exit(f"FAILED  the run came back as {data.params} and {data.metrics}")
    print("ok  the run is read back")

    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(download_artifacts(run_id=run, artifact_path="artifact.bin", dst_path=folder))
        if fetched.read_bytes() != content:
            sys.exit("FAILED  the artifact came back as another one")
    print("ok  the artifact is read back, byte for byte")

    client.delete_run(run)
    print(f"ok  the run is deleted again, in the experiment {EXPERIMENT}")


main()
