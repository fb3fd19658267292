"""What removes for good what was deleted, against the very MLflow it will run in, and a server of it."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import ViewType

from mlflow_operator import pod_scripts
from tests.unit.pod_scripts.minimal_s3 import Bucket, tiny_s3

DAY = 86400
Collect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A tracking server's URL, and where its database and its artifacts lie."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", f"{folder}/files"]
    quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, *places], env=quiet, stdout=log, stderr=log, start_new_session=True
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
        yield url, folder
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture
def client(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Speaks to the server, as do all that are made in this test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served[0])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(served[0])


@pytest.fixture
def collect(
    served: tuple[str, Path], client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Collect]:
    """Runs it as the Job does, and gives its answer. Whatever was deleted is old enough, unless told otherwise."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", f"{served[1]}/files")

    def run(database: Path = served[1] / "db", **settings: Any) -> dict[str, Any]:
        asked = {"mode": "Delete", "olderThanSeconds": 0, "experimentIDs": [], "tracesOlderThanSeconds": None}
        monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{database}")
        monkeypatch.setenv("MLFLOW_OPERATOR_GARBAGE_COLLECTION", json.dumps(asked | settings))
        words = tmp_path / "words"
        code = pod_scripts.GARBAGE_COLLECTION.replace("/dev/termination-log", str(words))
        with pytest.raises(SystemExit) as end:
            exec(compile(code, "garbage_collection.py", "exec"), {"__name__": "garbage_collection"})  # noqa: S102
        said: dict[str, Any] = json.loads(words.read_text())
        assert end.value.code == (1 if said["faults"] else 0)
        assert len(words.read_bytes()) < 3072
        return said

    yield run
    signal.signal(signal.SIGTERM, before)


class Lab:
    """An experiment with runs in it."""

    def __init__(self, client: MlflowClient, files: Path, name: str, place: str | None = None) -> None:
        self.client, self.files = client, files
        self.id = str(client.create_experiment(name, place))

    def run(self, tmp_path: Path) -> str:
        """One with a file."""
        run = str(self.client.create_run(self.id).info.run_id)
        (tmp_path / "a.txt").write_text("content")
        self.client.log_artifact(run, str(tmp_path / "a.txt"))
        return run

    def left(self) -> set[str]:
        """Names of what files lie in: runs, `models`, `traces`."""
        return {
            path.relative_to(self.files / self.id).parts[0] for path in self.files.glob(f"{self.id}/**/*.*")
        }

    def ids(self) -> set[str]:
        """The runs that there are, deleted ones included."""
        return {run.info.run_id for run in self.client.search_runs([self.id], "", ViewType.ALL)}


@pytest.fixture
def lab(served: tuple[str, Path], client: MlflowClient, request: pytest.FixtureRequest) -> Lab:
    """One of the test's own."""
    return Lab(client, served[1] / "files", request.node.name)


def test_deleted_runs_go_and_their_files_with_them(lab: Lab, collect: Collect, tmp_path: Path) -> None:
    """The others stay."""
    stays, goes = lab.run(tmp_path), lab.run(tmp_path)
    lab.client.delete_run(goes)
    assert lab.left() == {stays, goes}
    # of every experiment, those that other tests left included
    assert collect()["runs"] >= 1
    assert (lab.left(), lab.ids()) == ({stays}, {stays})


def test_what_was_deleted_of_late_stays(lab: Lab, collect: Collect, tmp_path: Path) -> None:
    """Somebody may want it back."""
    run = lab.run(tmp_path)
    lab.client.delete_run(run)
    assert collect(olderThanSeconds=DAY)["runs"] == 0
    lab.client.restore_run(run)
    assert lab.left() == {run}


def test_a_dry_run_lists_and_removes_nothing(
    lab: Lab, collect: Collect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs and experiments, each by its id."""
    run = lab.run(tmp_path)
    lab.client.delete_experiment(lab.id)
    said = collect(mode="DryRun", experimentIDs=[lab.id])
    assert (said["mode"], said["runs"], said["experiments"]) == ("DryRun", 1, 1)
    listed = capsys.readouterr().out
    assert f"would remove run {run} of experiment {lab.id}" in listed
    assert f"would remove experiment {lab.id}" in listed
    assert (lab.left(), lab.ids()) == ({run}, {run})


def test_only_the_experiments_that_are_named_are_touched(
    lab: Lab, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """Deleted ones among the others included: there the command of MLflow does as it likes."""
    other = Lab(client, lab.files, "another")
    runs = lab.run(tmp_path), other.run(tmp_path)
    client.delete_run(runs[0])
    client.delete_experiment(other.id)
    assert collect(experimentIDs=[lab.id])["runs"] == 1
    assert (lab.ids(), other.ids()) == (set(), {runs[1]})
    assert client.get_experiment(other.id).lifecycle_stage == "deleted"


def test_files_that_a_registered_model_is_made_of_stay(
    lab: Lab, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """Whoever deletes the run sees nothing of the model: to lose it would cost more than the room."""
    run = lab.run(tmp_path)
    client.create_registered_model("kept")
    version = client.create_model_version("kept", f"runs:/{run}/a.txt", run).version
    client.delete_run(run)
    said = collect(experimentIDs=[lab.id])
    assert (said["runs"], said["kept"]) == (0, 1)
    assert lab.left() == {run}
    client.delete_model_version("kept", version)
    assert collect(experimentIDs=[lab.id])["runs"] == 1


def traced(client: MlflowClient, experiment: str) -> str:
    """A trace with spans, where this client puts them."""
    span = client.start_trace("asked", experiment_id=experiment)
    client.end_trace(span.trace_id)
    from mlflow import flush_trace_async_logging  # noqa: PLC0415  it makes the exporter that it flushes

    flush_trace_async_logging()
    return str(span.trace_id)


def test_a_deleted_experiment_goes_with_all_that_is_in_it(
    lab: Lab, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """Runs, models, traces, and the files of each."""
    lab.run(tmp_path)
    model = client.create_logged_model(lab.id)
    client.log_model_artifact(model.model_id, str(tmp_path / "a.txt"))
    traced(client, lab.id)
    assert "models" in lab.left()
    client.delete_experiment(lab.id)
    said = collect(experimentIDs=[lab.id])
    assert said["faults"] == []
    assert (said["runs"], said["models"], said["traces"], said["experiments"]) == (1, 1, 1, 1)
    assert lab.left() == set()
    assert lab.id not in {each.experiment_id for each in client.search_experiments(ViewType.ALL)}


def test_an_experiment_stays_while_something_in_it_does(
    lab: Lab, collect: Collect, client: MlflowClient, tmp_path: Path
) -> None:
    """A row that goes takes all rows below it along, and nobody would ever find their files."""
    client.create_registered_model("stands")
    model = client.create_logged_model(lab.id)
    client.create_model_version("stands", f"models:/{model.model_id}", model_id=model.model_id)
    client.delete_experiment(lab.id)
    said = collect(experimentIDs=[lab.id])
    assert (said["experiments"], said["models"], said["kept"]) == (0, 0, 2)
    assert client.get_experiment(lab.id).lifecycle_stage == "deleted"


def test_old_traces_go_and_young_ones_stay(lab: Lab, collect: Collect, client: MlflowClient) -> None:
    """Where nobody asks for it, all of them stay."""
    traces = {traced(client, lab.id) for _ in range(3)}

    def left() -> set[str]:
        return {trace.info.trace_id for trace in client.search_traces([lab.id], include_spans=False)}

    only = {"experimentIDs": [lab.id]}
    assert collect(**only)["traces"] == collect(tracesOlderThanSeconds=DAY, **only)["traces"] == 0
    assert left() == traces
    assert collect(mode="DryRun", tracesOlderThanSeconds=0, **only)["traces"] == 3
    assert collect(tracesOlderThanSeconds=0, **only)["traces"] == 3
    assert left() == set()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A store that clients reach themselves."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    with tiny_s3() as made:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", made.url)
        yield made


def test_what_a_store_refuses_to_remove_is_not_forgotten(
    collect: Collect, client: MlflowClient, bucket: Bucket, tmp_path: Path, lab: Lab
) -> None:
    """Nor is it a reason to leave what lies elsewhere; and once the store lets it go, it goes."""
    far = Lab(client, tmp_path, "far", "s3://bucket/far")
    runs = far.run(tmp_path), lab.run(tmp_path)
    for run in runs:
        client.delete_run(run)
    bucket.keeps = True
    said = collect(experimentIDs=[far.id, lab.id])
    assert (said["runs"], said["failed"]) == (1, 1)
    assert "refuses" in said["faults"][0]["said"]
    assert runs[0] in said["faults"][0]["said"]
    assert (far.ids(), lab.ids()) == ({runs[0]}, set())
    bucket.keeps = False
    assert collect(experimentIDs=[far.id])["runs"] == 1
    assert not bucket.files


def test_a_place_that_is_not_a_things_own_is_left_alone(
    collect: Collect, lab: Lab, client: MlflowClient, served: tuple[str, Path], tmp_path: Path
) -> None:
    """A trace's place is what a client said it is: it could name the folder of all others."""
    trace, stays = traced(client, lab.id), lab.run(tmp_path)
    with sqlite3.connect(served[1] / "db") as database:
        database.execute(
            "UPDATE trace_tags SET value = ? WHERE key = 'mlflow.artifactLocation' AND request_id = ?",
            [f"mlflow-artifacts:/{lab.id}", trace],
        )
    said = collect(tracesOlderThanSeconds=0, experimentIDs=[lab.id])
    assert (said["traces"], said["failed"]) == (0, 1)
    assert "others may use" in said["faults"][0]["said"]
    assert lab.left() >= {stays}


def test_tables_of_another_version_are_not_opened(
    collect: Collect, served: tuple[str, Path], tmp_path: Path
) -> None:
    """MLflow moves tables by itself where they are older: a Job of a newer image would, under a server."""
    copy = tmp_path / "copy"
    with sqlite3.connect(served[1] / "db") as database, sqlite3.connect(copy) as other:
        database.backup(other)
        other.execute("UPDATE alembic_version SET version_num = 'b7e2c1a4d9f3'")
    said = collect(copy)
    assert [each["kind"] for each in said["faults"]] == ["schema"]
    assert "b7e2c1a4d9f3" in said["faults"][0]["said"]
