"""Sources of versions of models. tests/contracts/test_authentication.py tests them with MLflow."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_operator.pod_scripts import model_sources

pytest.importorskip("mlflow")

from mlflow.exceptions import MlflowException

ROOT = "s3://bucket/team/1/run/artifacts"


class Store:
    """A run and a logged model."""

    def get_run(self, run_id: str) -> Any:
        assert run_id == "run"
        return SimpleNamespace(info=SimpleNamespace(artifact_uri=ROOT))

    def get_logged_model(self, model_id: str) -> Any:
        assert model_id == "m-1"
        return SimpleNamespace(artifact_location="s3://bucket/team/1/models/m-1/artifacts")


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's module, after the change."""
    monkeypatch.setenv(model_sources.DESTINATION_ENV, "s3://bucket/team")
    module = SimpleNamespace(_get_tracking_store=Store, checked=[])
    module._validate_source_run = module._validate_source_model = lambda *args: module.checked.append(args)
    model_sources.protect(module)
    return module


@pytest.mark.parametrize(
    "source",
    [
        "s3://bucket/team/1/other/artifacts",
        "s3://bucket/team/1/run/artifacts-2",
        "s3://bucket/team/1/run",
        "s3://bucket/team",
        "s3://bucket",
        "S3://bucket//team/1/other?a=b#c",
    ],
)
def test_source_in_the_artifacts_must_belong_to_the_named_run(handlers: Any, source: str) -> None:
    """Also one above them: a client adds a path when it reads a file."""
    for validate, owners in (
        (handlers._validate_source_run, ("", "run")),
        (handlers._validate_source_model, ("", "m-1")),
    ):
        for owner in owners:
            with pytest.raises(MlflowException, match="artifact storage of the server") as raised:
                validate(source, owner)
            assert raised.value.get_http_status_code() == 400


def test_source_of_the_named_run_or_model_is_accepted(handlers: Any) -> None:
    handlers._validate_source_run(ROOT, "run")
    handlers._validate_source_run(f"{ROOT}/model", "run")
    handlers._validate_source_model("s3://bucket/team/1/models/m-1/artifacts", "m-1")
    assert [owner for _, owner in handlers.checked] == ["run", "run", "m-1"]


@pytest.mark.parametrize(
    "source", ["s3://bucket/other/1", "s3://bucket/team-2/1", "s3://other/team/1", "models:/m/1", "runs:/a/b"]
)
def test_other_sources_are_left_to_mlflow(
    handlers: Any, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    handlers._validate_source_run(source, "")
    assert handlers.checked == [(source, "")]
    monkeypatch.delenv(model_sources.DESTINATION_ENV)
    handlers._validate_source_run("s3://bucket/team/1/other/artifacts", "")
