"""The garbage collection script, with the pinned MLflow version and a real MLflow server."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.utils.workspace_context import WorkspaceContext

from mlflow_operator import pod_scripts
from tests.unit.pod_scripts.minimal_s3 import Bucket

DAY_SECONDS = 86400
Collect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of a tracking server, and the folder with its database and artifacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    with run_server(folder) as url:
        yield url, folder


@contextmanager
def run_server(folder: Path, **variables: str) -> Iterator[str]:
    """Run a tracking server with a database and artifacts in `folder`; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", f"{folder}/files"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | variables
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, *stores], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1500):
            if server.poll() is not None:
                pytest.fail((folder / "log").read_text())
            try:
                requests.get(f"{url}/health", timeout=1).raise_for_status()
                break
            except requests.RequestException:
                signal.sigtimedwait([], 0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture
def client(tracking_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the server; all other clients in this test use the same server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server[0])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(tracking_server[0])


@pytest.fixture
def collect(
    tracking_server: tuple[str, Path], client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Collect]:
    """Runs the script as the Job does; returns its result. By default all deleted objects are old enough."""
    previous_handler = signal.getsignal(signal.SIGTERM)
    folder = tracking_server[1]

    def run(database: Path = folder / "db", **overrides: Any) -> dict[str, Any]:
        return run_script(database, folder / "files", tmp_path, monkeypatch, **overrides)

    yield run
    signal.signal(signal.SIGTERM, previous_handler)


def run_script(
    database: Path,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page_size: int = 100,
    **overrides: Any,
) -> dict[str, Any]:
    """Run the script as the Job does; return its result. By default all deleted objects are old enough."""
    defaults = {
        "mode": "Delete",
        "olderThanSeconds": 0,
        "experimentIDs": [],
        "tracesOlderThanSeconds": None,
    }
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", str(files))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_OPERATOR_GARBAGE_COLLECTION", json.dumps(defaults | overrides))
    termination_log = tmp_path / "termination-log"
    code = pod_scripts.GARBAGE_COLLECTION.replace("/dev/termination-log", str(termination_log))
    code = code.replace("PAGE_SIZE = 100", f"PAGE_SIZE = {page_size}")
    with pytest.raises(SystemExit) as exit_info:
        exec(compile(code, "garbage_collection.py", "exec"), {"__name__": "garbage_collection"})  # noqa: S102
    result: dict[str, Any] = json.loads(termination_log.read_text())
    assert exit_info.value.code == (1 if result["errors"] else 0)
    assert len(termination_log.read_bytes()) < 3072
    return result


class Experiment:
    """An experiment and its artifacts."""

    def __init__(self, client: MlflowClient, files: Path, name: str, location: str | None = None) -> None:
        self.client, self.files = client, files
        self.id = str(client.create_experiment(name, location))

    def create_run(self, tmp_path: Path) -> str:
        """Create a run with an artifact."""
        run = str(self.client.create_run(self.id).info.run_id)
        (tmp_path / "a.txt").write_text("content")
        self.client.log_artifact(run, str(tmp_path / "a.txt"))
        return run

    def artifact_folders(self) -> set[str]:
        """Names of the top-level folders that contain files: IDs of runs, `models`, `traces`."""
        return {
            path.relative_to(self.files / self.id).parts[0] for path in self.files.glob(f"{self.id}/**/*.*")
        }

    def run_ids(self) -> set[str]:
        """IDs of all runs, deleted ones included."""
        return {run.info.run_id for run in self.client.search_runs([self.id], "", ViewType.ALL)}


@pytest.fixture
def experiment(
    tracking_server: tuple[str, Path], client: MlflowClient, request: pytest.FixtureRequest
) -> Experiment:
    """An experiment of this test."""
    return Experiment(client, tracking_server[1] / "files", request.node.name)


def test_deleted_runs_and_their_artifacts_are_deleted(
    experiment: Experiment, collect: Collect, tmp_path: Path
) -> None:
    """Other runs are kept."""
    kept, deleted = experiment.create_run(tmp_path), experiment.create_run(tmp_path)
    experiment.client.delete_run(deleted)
    assert experiment.artifact_folders() == {kept, deleted}
    # in all experiments, also those of other tests
    assert collect()["runs"] >= 1
    assert (experiment.artifact_folders(), experiment.run_ids()) == ({kept}, {kept})


def test_recently_deleted_runs_are_kept(experiment: Experiment, collect: Collect, tmp_path: Path) -> None:
    """Their owner may still restore them."""
    run = experiment.create_run(tmp_path)
    experiment.client.delete_run(run)
    assert collect(olderThanSeconds=DAY_SECONDS)["runs"] == 0
    experiment.client.restore_run(run)
    assert experiment.artifact_folders() == {run}


def test_dry_run_lists_and_deletes_nothing(
    experiment: Experiment, collect: Collect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the ID of each run and experiment."""
    run = experiment.create_run(tmp_path)
    experiment.client.delete_experiment(experiment.id)
    result = collect(mode="DryRun", experimentIDs=[experiment.id])
    assert (result["mode"], result["runs"], result["experiments"]) == ("DryRun", 1, 1)
    log = capsys.readouterr().out
    assert f"would delete run {run} of experiment {experiment.id}" in log
    assert f"would delete experiment {experiment.id}" in log
    assert (experiment.artifact_folders(), experiment.run_ids()) == ({run}, {run})


def test_only_selected_experiments_are_changed(
    experiment: Experiment, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """Other deleted experiments are kept, too, unlike with MLflow's own command."""
    other = Experiment(client, experiment.files, "another")
    runs = experiment.create_run(tmp_path), other.create_run(tmp_path)
    client.delete_run(runs[0])
    client.delete_experiment(other.id)
    assert collect(experimentIDs=[experiment.id])["runs"] == 1
    assert (experiment.run_ids(), other.run_ids()) == (set(), {runs[1]})
    assert client.get_experiment(other.id).lifecycle_stage == "deleted"


def test_artifacts_of_registered_models_are_kept(
    experiment: Experiment, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """A user who deletes the run does not see the model, and its loss would cost more than the disk space."""
    run = experiment.create_run(tmp_path)
    client.create_registered_model("kept")
    version = client.create_model_version("kept", f"runs:/{run}/a.txt", run).version
    client.delete_run(run)
    result = collect(experimentIDs=[experiment.id])
    assert (result["runs"], result["kept"]) == (0, 1)
    assert experiment.artifact_folders() == {run}
    client.delete_model_version("kept", version)
    assert collect(experimentIDs=[experiment.id])["runs"] == 1


def create_trace(client: MlflowClient, experiment_id: str) -> str:
    """Create a trace with spans, where this client stores them."""
    span = client.start_trace("asked", experiment_id=experiment_id)
    client.end_trace(span.trace_id)
    from mlflow import flush_trace_async_logging  # noqa: PLC0415  importing it creates the exporter that it flushes

    flush_trace_async_logging()
    return str(span.trace_id)


def test_deleted_experiment_is_deleted_with_its_content(
    experiment: Experiment, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """Runs, models, traces, and their artifacts."""
    experiment.create_run(tmp_path)
    model = client.create_logged_model(experiment.id)
    client.log_model_artifact(model.model_id, str(tmp_path / "a.txt"))
    create_trace(client, experiment.id)
    assert "models" in experiment.artifact_folders()
    client.delete_experiment(experiment.id)
    result = collect(experimentIDs=[experiment.id])
    assert result["errors"] == []
    assert (result["runs"], result["models"], result["traces"], result["experiments"]) == (1, 1, 1, 1)
    assert experiment.artifact_folders() == set()
    assert experiment.id not in {found.experiment_id for found in client.search_experiments(ViewType.ALL)}


def test_experiment_is_kept_while_its_content_is(
    experiment: Experiment, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """The deletion of its row would also delete the rows of its content, and their artifacts would be lost."""
    client.create_registered_model("stands")
    model = client.create_logged_model(experiment.id)
    client.create_model_version("stands", f"models:/{model.model_id}", model_id=model.model_id)
    client.delete_experiment(experiment.id)
    result = collect(experimentIDs=[experiment.id])
    assert (result["experiments"], result["models"], result["kept"]) == (0, 0, 2)
    assert client.get_experiment(experiment.id).lifecycle_stage == "deleted"


def test_old_traces_are_deleted_and_recent_ones_kept(
    experiment: Experiment, collect: Collect, client: MlflowClient
) -> None:
    """By default all traces are kept."""
    traces = {create_trace(client, experiment.id) for _ in range(3)}

    def trace_ids() -> set[str]:
        found = client.search_traces([experiment.id], include_spans=False)
        return {trace.info.trace_id for trace in found}

    only = {"experimentIDs": [experiment.id]}
    assert collect(**only)["traces"] == collect(tracesOlderThanSeconds=DAY_SECONDS, **only)["traces"] == 0
    assert trace_ids() == traces
    assert collect(mode="DryRun", tracesOlderThanSeconds=0, **only)["traces"] == 3
    assert collect(tracesOlderThanSeconds=0, **only)["traces"] == 3
    assert trace_ids() == set()


def test_rejected_deletion_keeps_the_run(
    collect: Collect, client: MlflowClient, bucket: Bucket, tmp_path: Path, experiment: Experiment
) -> None:
    """Other objects are still deleted, and this one by a later run, once the store allows it."""
    on_s3 = Experiment(client, tmp_path, "far", "s3://bucket/far")
    runs = on_s3.create_run(tmp_path), experiment.create_run(tmp_path)
    for run in runs:
        client.delete_run(run)
    bucket.denies_deletion = True
    result = collect(experimentIDs=[on_s3.id, experiment.id])
    assert (result["runs"], result["failed"]) == (1, 1)
    assert "rejects its deletion" in result["errors"][0]["message"]
    assert runs[0] in result["errors"][0]["message"]
    assert (on_s3.run_ids(), experiment.run_ids()) == ({runs[0]}, set())
    bucket.denies_deletion = False
    assert collect(experimentIDs=[on_s3.id])["runs"] == 1
    assert not bucket.files


def test_objects_that_cannot_be_deleted_do_not_block_others(
    collect: Collect, client: MlflowClient, bucket: Bucket, tmp_path: Path, experiment: Experiment
) -> None:
    """They fail in each run, so a limit on their number would stop each run before the same other objects."""
    on_s3 = Experiment(client, tmp_path, "stuck", "s3://bucket/stuck")
    stuck = {on_s3.create_run(tmp_path) for _ in range(12)}
    for run in (*stuck, *(experiment.create_run(tmp_path) for _ in range(3))):
        client.delete_run(run)
    bucket.denies_deletion = True
    with pytest.MonkeyPatch.context() as patch:
        # In most random orders, no ten failures follow one another.
        patch.setattr(random, "shuffle", lambda ids: ids.sort(key=lambda id_: id_ not in stuck))
        result = collect(experimentIDs=[on_s3.id, experiment.id])
    assert (result["runs"], result["failed"]) == (3, 12)
    assert (on_s3.run_ids(), experiment.run_ids()) == (stuck, set())
    assert {error["code"] for error in result["errors"]} == {"runs"}
    bucket.denies_deletion = False
    assert collect(experimentIDs=[on_s3.id])["runs"] == 12


def test_run_ends_if_the_store_does_not_answer(
    collect: Collect,
    client: MlflowClient,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each object would fail only after a minute of retries."""
    on_s3 = Experiment(client, tmp_path, "gone", "s3://bucket/gone")
    for run in [on_s3.create_run(tmp_path) for _ in range(12)]:
        client.delete_run(run)
    bucket.denies_deletion = True
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/missing")
    bucket.denies_lists_of = "missing"
    result = collect(experimentIDs=[on_s3.id])
    assert result["failed"] == 10
    assert result["errors"][-1]["code"] == "store"
    bucket.denies_deletion, bucket.denies_lists_of = False, ""
    assert collect(experimentIDs=[on_s3.id])["runs"] == 12


def test_traces_behind_a_page_of_failures_are_deleted(
    collect: Collect, client: MlflowClient, tracking_server: tuple[str, Path], experiment: Experiment
) -> None:
    """The pages of the search are small in this test."""
    traces = [create_trace(client, experiment.id) for _ in range(5)]
    with sqlite3.connect(tracking_server[1] / "db") as database:
        for trace in traces[-3:]:
            database.execute(
                "UPDATE trace_tags SET value = ? WHERE key = 'mlflow.artifactLocation' AND request_id = ?",
                [f"mlflow-artifacts:/{experiment.id}", trace],
            )
    result = collect(page_size=2, tracesOlderThanSeconds=0, experimentIDs=[experiment.id])
    assert (result["traces"], result["failed"]) == (2, 3)
    assert (
        collect(mode="DryRun", page_size=2, tracesOlderThanSeconds=0, experimentIDs=[experiment.id])["traces"]
        == 3
    )


def test_garbage_is_collected_in_all_workspaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without a workspace, all methods of the store fail."""
    folder = tmp_path_factory.mktemp("workspaces")
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with run_server(folder, MLFLOW_ENABLE_WORKSPACES="true") as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        client = MlflowClient(url)
        client.create_workspace("research")
        run_ids = {}
        for workspace in ("default", "research"):
            with WorkspaceContext(workspace):
                experiment = Experiment(client, folder / "files", f"in {workspace}")
                run_ids[workspace] = [experiment.create_run(tmp_path) for _ in range(2)]
                client.delete_run(run_ids[workspace][0])
        assert len(list((folder / "files").rglob("a.txt"))) == 4
        result = run_script(folder / "db", folder / "files", tmp_path, monkeypatch)
        assert result["errors"] == []
        assert result["runs"] == 2
        kept = {path.parts[-3] for path in (folder / "files").rglob("a.txt")}
        assert kept == {ids[1] for ids in run_ids.values()}


def test_shared_artifact_location_is_not_deleted(
    collect: Collect,
    experiment: Experiment,
    client: MlflowClient,
    tracking_server: tuple[str, Path],
    tmp_path: Path,
) -> None:
    """Clients set the location of a trace, so it could be the folder of other objects."""
    trace, run = create_trace(client, experiment.id), experiment.create_run(tmp_path)
    with sqlite3.connect(tracking_server[1] / "db") as database:
        database.execute(
            "UPDATE trace_tags SET value = ? WHERE key = 'mlflow.artifactLocation' AND request_id = ?",
            [f"mlflow-artifacts:/{experiment.id}", trace],
        )
    result = collect(tracesOlderThanSeconds=0, experimentIDs=[experiment.id])
    assert (result["traces"], result["failed"]) == (0, 1)
    assert "other objects may use" in result["errors"][0]["message"]
    assert experiment.artifact_folders() >= {run}


def test_schema_of_another_version_is_not_opened(
    collect: Collect, tracking_server: tuple[str, Path], tmp_path: Path
) -> None:
    """MLflow migrates an older schema when it opens it: a Job with a newer image would do so while a server runs."""
    copy = tmp_path / "copy"
    with sqlite3.connect(tracking_server[1] / "db") as database, sqlite3.connect(copy) as other:
        database.backup(other)
        other.execute("UPDATE alembic_version SET version_num = 'b7e2c1a4d9f3'")
    result = collect(copy)
    assert [error["code"] for error in result["errors"]] == ["schema"]
    assert "b7e2c1a4d9f3" in result["errors"][0]["message"]
