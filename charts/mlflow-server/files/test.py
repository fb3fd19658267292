"""Program of the `helm test` pod: logs a run with an artifact to the server, and reads both back."""

import base64
import contextlib
import http.client
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 240  # shorter than Helm's timeout of 300 s, so that the pod can print the reason
EXPERIMENT = "helm-test"

# Report errors early, and send no telemetry.
os.environ.update(
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
    MLFLOW_HTTP_REQUEST_TIMEOUT="60",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    GIT_PYTHON_REFRESH="quiet",
)


def version_request(uri):
    """The request for the version. A server with authentication requires credentials for it."""
    request = urllib.request.Request(f"{uri}/version")
    if "MLFLOW_TRACKING_PASSWORD" in os.environ:
        login = f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def version(uri):
    """Wait until the server responds, and return its version."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(version_request(uri), timeout=5) as response:
                return response.read().decode()
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(
                    f"FAILED  {uri} does not respond ({error}). To find the cause, run: kubectl describe mls"
                )
        time.sleep(1)


def stop_proxies():
    """Ask the proxy of a service mesh to exit: otherwise it keeps the pod running, and Helm waits until its timeout."""
    for url in ("http://127.0.0.1:15020/quitquitquit", "http://127.0.0.1:4191/shutdown"):  # Istio, Linkerd
        # Without such a proxy, the connection is refused.
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=2).close()


def main():
    """Print each completed step; exit with code 1 at the first failure."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    print(f"waiting for {uri}")
    print(f"ok  the server responds: MLflow {version(uri)}")

    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient()
    existing = client.get_experiment_by_name(EXPERIMENT)
    experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
    if existing and existing.lifecycle_stage == "deleted":
        client.restore_experiment(experiment)
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "asked-by", "helm test")
    client.log_metric(run, "answer", 42.0)
    print(f"ok  run logged: {run}")

    content = os.urandom(256 * 1024)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "artifact.bin")
        file.write_bytes(content)
        client.log_artifact(run, str(file))
    client.set_terminated(run)
    print("ok  artifact logged")

    data = client.get_run(run).data
    if (data.params, data.metrics) != ({"asked-by": "helm test"}, {"answer": 42.0}):
        sys.exit(f"FAILED  the run has unexpected params {data.params} or metrics {data.metrics}")
    print("ok  run read back")

    with tempfile.TemporaryDirectory() as folder:
        downloaded = Path(download_artifacts(run_id=run, artifact_path="artifact.bin", dst_path=folder))
        if downloaded.read_bytes() != content:
            sys.exit("FAILED  the downloaded artifact differs from the logged artifact")
    print("ok  artifact read back, content identical")

    client.delete_run(run)
    print(f"ok  run deleted in the experiment {EXPERIMENT}")


try:
    main()
finally:
    stop_proxies()
