"""manifests/: what is generated is fresh, and what users apply works as it stands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlflow_operator import api
from mlflow_operator.cli import main
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION as MLFLOW
from mlflow_operator.model.versions import Images
from tests import generate
from tests.chart.kubeconform import NEWEST, OLDEST, misfits
from tests.cluster.settings import ROOT

MANIFESTS = ROOT / "manifests"
EXAMPLES = sorted((MANIFESTS / "examples").glob("*.yaml"))
FIRST = MANIFESTS / "examples" / "mlflowserver.yaml"

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def read(path: Path) -> list[Object]:
    """Every document of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def servers(path: Path) -> list[Object]:
    """The MLflowServers of a file."""
    return [document for document in read(path) if document["kind"] == api.KIND]


def made(path: Path) -> list[Object]:
    """What the operator makes of an example."""
    outcome = CliRunner().invoke(main, ["render", "--with-secrets", "-f", str(path)])
    assert outcome.exit_code == 0, outcome.output
    return [document for document in yaml.safe_load_all(outcome.stdout) if document]


OPERATOR = read(MANIFESTS / "operator.yaml")


def test_nothing_generated_is_stale() -> None:
    """`make generate` writes it anew."""
    assert generate.stale(generate.generated()) == []


def test_the_check_fails_on_what_is_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By exit code, with the file and the command; and it writes nothing."""
    before = (MANIFESTS / "crd.yaml").read_text()
    monkeypatch.setattr(generate, "as_yaml", lambda: "something else\n")
    assert generate.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "manifests/crd.yaml is stale. Run `make generate`" in said
    assert "charts/mlflow-operator/files/crd.yaml is stale" in said
    assert (MANIFESTS / "crd.yaml").read_text() == before


def test_deleting_the_operator_deletes_no_server() -> None:
    """`kubectl delete -f manifests/operator.yaml` takes no definition along, and so no MLflowServer."""
    assert "CustomResourceDefinition" not in {obj["kind"] for obj in OPERATOR}


def test_the_namespace_comes_first_and_is_restricted() -> None:
    """kubectl applies in this order; what follows is in it, or in none."""
    first, *others = OPERATOR
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "mlflow-operator")
    assert first["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert {obj["metadata"].get("namespace", "mlflow-operator") for obj in others} == {"mlflow-operator"}


def test_the_manifest_does_not_claim_to_be_helm_s() -> None:
    """A release that is not there would be looked for in vain."""
    assert "Helm" not in (MANIFESTS / "operator.yaml").read_text()


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
def test_manifests_and_examples_fit_their_schemas(kubernetes: str) -> None:
    """And so does all that the operator makes of the examples, as `mlflow-operator render` shows it."""
    written = [*OPERATOR, *read(MANIFESTS / "crd.yaml"), *(obj for file in EXAMPLES for obj in read(file))]
    assert misfits(written + [obj for file in EXAMPLES for obj in made(file)], kubernetes) == []


def test_the_first_server_is_ten_lines() -> None:
    """That is what we promise; comments come on top."""
    lines = [line for line in FIRST.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) == 10
    assert [server["metadata"]["name"] for server in read(FIRST)] == ["tracking"]


@each_example
def test_an_example_is_taken_and_made(example: Path) -> None:
    """By the models with all their rules, and by `mlflow-operator render`, through which careful users look first."""
    assert servers(example)
    for server in servers(example):
        api.parse(server)
    assert {"Deployment", "Service"} <= {obj["kind"] for obj in made(example)}


@each_example
def test_an_example_holds_no_secret(example: Path) -> None:
    """Nothing that works if applied in haste: every value says that it is to be changed."""
    for secret in (document for document in read(example) if document["kind"] == "Secret"):
        assert all("CHANGE" in value for value in secret["stringData"].values())


@each_example
def test_what_must_be_changed_is_marked(example: Path) -> None:
    """On its own line, so that a search for the mark finds all of it."""
    lines = [line for line in example.read_text().splitlines() if not line.lstrip().startswith("#")]
    made_up = ("example", "change-me", "1000650000", "111122223333")
    assert [
        line
        for line in lines
        if "CHANGE" not in line and any(word in line.split(" #")[0] for word in made_up)
    ] == []


@each_example
def test_an_example_brings_what_it_names(example: Path) -> None:
    """Credentials and service accounts, under the very keys that the server reads."""
    brought = {(d["kind"], d["metadata"]["name"]): d for d in read(example) if d["kind"] != api.KIND}
    for server in servers(example):
        spec = api.parse(server).spec
        account = spec.pod_template.spec.service_account_name
        assert account is None or ("ServiceAccount", account) in brought
        if spec.database.external and spec.database.external.uri_secret_ref:
            uri = spec.database.external.uri_secret_ref
            assert uri.key in brought["Secret", uri.name]["stringData"]
        if spec.database.external and spec.database.external.credentials_secret_ref:
            login = spec.database.external.credentials_secret_ref
            held = brought["Secret", login.name]["stringData"].keys()
            assert held == {login.username_key, login.password_key}
        if spec.database.provision:
            admin = spec.database.provision.admin_secret_ref
            held = brought["Secret", admin.name]["stringData"].keys()
            assert held == {admin.username_key, admin.password_key}
        if spec.artifacts.s3 and spec.artifacts.s3.credentials_secret_ref:
            keys = spec.artifacts.s3.credentials_secret_ref
            held = brought["Secret", keys.name]["stringData"].keys()
            assert held == {keys.access_key_id_key, keys.secret_access_key_key}


@each_example
def test_an_example_names_the_versions_we_test(example: Path) -> None:
    """An old one would be copied for years."""
    images = Images()
    ours = (images.server(MLFLOW), images.postgres, images.minio, images.seaweedfs)
    tags = {image.rsplit(":", 1)[1] for image in ours}
    for server in servers(example):
        assert server["spec"].get("version", MLFLOW) == MLFLOW
        assert {image.rsplit(":", 1)[1] for image in _images(server["spec"])} <= tags


def _images(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "image":
            yield value
        else:
            yield from _images(value)
