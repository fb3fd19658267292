"""manifests/: generated files are up to date, and examples are valid."""

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
from tests.chart.kubeconform import NEWEST_KUBERNETES, OLDEST_KUBERNETES, schema_errors
from tests.cluster.settings import ROOT

MANIFESTS = ROOT / "manifests"
EXAMPLES = sorted((MANIFESTS / "examples").glob("*.yaml"))
FIRST_EXAMPLE = MANIFESTS / "examples" / "mlflowserver.yaml"

for_each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def load_documents(path: Path) -> list[Object]:
    """All YAML documents in a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def load_servers(path: Path) -> list[Object]:
    """The MLflowServers in a file."""
    return [document for document in load_documents(path) if document["kind"] == api.KIND]


def render_example(path: Path) -> list[Object]:
    """The objects that the operator creates for an example."""
    result = CliRunner().invoke(main, ["render", "--with-secrets", "-f", str(path)])
    assert result.exit_code == 0, result.output
    return [document for document in yaml.safe_load_all(result.stdout) if document]


OPERATOR = load_documents(MANIFESTS / "operator.yaml")


def test_generated_files_are_up_to_date() -> None:
    """`make generate` updates them."""
    assert generate.stale(generate.generated()) == []


def test_generate_check_reports_stale_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It exits with 1, prints the files and the command, and writes nothing."""
    before = (MANIFESTS / "crd.yaml").read_text()
    monkeypatch.setattr(generate, "as_yaml", lambda: "something else\n")
    assert generate.main(["--check"]) == 1
    stderr = capsys.readouterr().err
    assert "manifests/crd.yaml is stale. Run `make generate`" in stderr
    assert "charts/mlflow-operator/files/crd.yaml is stale" in stderr
    assert (MANIFESTS / "crd.yaml").read_text() == before


def test_operator_manifest_contains_no_crd() -> None:
    """`kubectl delete -f manifests/operator.yaml` must not delete the CRD and all MLflowServers."""
    assert "CustomResourceDefinition" not in {obj["kind"] for obj in OPERATOR}


def test_namespace_is_first_and_restricted() -> None:
    """kubectl applies objects in this order. All other namespaced objects are in this namespace."""
    first, *others = OPERATOR
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "mlflow-operator")
    assert first["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert {obj["metadata"].get("namespace", "mlflow-operator") for obj in others} == {"mlflow-operator"}


def test_operator_manifest_has_no_helm_labels() -> None:
    """Tools would look for a Helm release that does not exist."""
    assert "Helm" not in (MANIFESTS / "operator.yaml").read_text()


@pytest.mark.parametrize("kubernetes", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_manifests_and_examples_match_their_schemas(kubernetes: str) -> None:
    """The objects that `mlflow-operator render` prints for the examples match their schemas, too."""
    manifests = [
        *OPERATOR,
        *load_documents(MANIFESTS / "crd.yaml"),
        *(obj for file in EXAMPLES for obj in load_documents(file)),
    ]
    assert (
        schema_errors(manifests + [obj for file in EXAMPLES for obj in render_example(file)], kubernetes)
        == []
    )


def test_first_example_has_ten_lines() -> None:
    """The README promises ten lines, without comments."""
    lines = [
        line for line in FIRST_EXAMPLE.read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    assert len(lines) == 10
    assert [server["metadata"]["name"] for server in load_documents(FIRST_EXAMPLE)] == ["tracking"]


@for_each_example
def test_example_is_valid_and_can_be_rendered(example: Path) -> None:
    """The models accept it, and `mlflow-operator render` prints its objects."""
    assert load_servers(example)
    for server in load_servers(example):
        api.parse(server)
    assert {"Deployment", "Service"} <= {obj["kind"] for obj in render_example(example)}


@for_each_example
def test_example_contains_no_usable_secret(example: Path) -> None:
    """Every value of a Secret is a placeholder with CHANGE, except the version of a passphrase."""
    for secret in (document for document in load_documents(example) if document["kind"] == "Secret"):
        values = [text for key, text in secret["stringData"].items() if key != "passphrase-version"]
        assert all("CHANGE" in value for value in values)


@for_each_example
def test_values_to_change_are_marked(example: Path) -> None:
    """Every line with a placeholder contains CHANGE, so that users find all of them."""
    lines = [line for line in example.read_text().splitlines() if not line.lstrip().startswith("#")]
    placeholders = ("example", "change-me", "1000650000", "111122223333")
    assert [
        line
        for line in lines
        if "CHANGE" not in line and any(word in line.split(" #")[0] for word in placeholders)
    ] == []


@for_each_example
def test_example_contains_the_objects_it_refers_to(example: Path) -> None:
    """Service accounts, and Secrets with the keys that the server reads."""
    objects = {
        (d["kind"], d["metadata"]["name"]): d for d in load_documents(example) if d["kind"] != api.KIND
    }
    for server in load_servers(example):
        spec = api.parse(server).spec
        service_account = spec.pod_template.spec.service_account_name
        assert service_account is None or ("ServiceAccount", service_account) in objects
        if spec.database.external and spec.database.external.uri_secret_ref:
            uri = spec.database.external.uri_secret_ref
            assert uri.key in objects["Secret", uri.name]["stringData"]
        if spec.database.external and spec.database.external.credentials_secret_ref:
            credentials = spec.database.external.credentials_secret_ref
            secret_keys = objects["Secret", credentials.name]["stringData"].keys()
            assert secret_keys == {credentials.username_key, credentials.password_key}
        if spec.database.provision:
            admin = spec.database.provision.admin_secret_ref
            secret_keys = objects["Secret", admin.name]["stringData"].keys()
            assert secret_keys == {admin.username_key, admin.password_key}
        if spec.artifacts.s3 and spec.artifacts.s3.credentials_secret_ref:
            keys = spec.artifacts.s3.credentials_secret_ref
            secret_keys = objects["Secret", keys.name]["stringData"].keys()
            assert secret_keys == {keys.access_key_id_key, keys.secret_access_key_key}


@for_each_example
def test_example_uses_tested_versions(example: Path) -> None:
    """Users copy the versions in examples."""
    images = Images()
    tested_images = (images.server(MLFLOW), images.postgres, images.minio, images.seaweedfs)
    tags = {image.rsplit(":", 1)[1] for image in tested_images}
    for server in load_servers(example):
        assert server["spec"].get("version", MLFLOW) == MLFLOW
        assert {image.rsplit(":", 1)[1] for image in _images(server["spec"])} <= tags


def _images(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "image":
            yield value
        else:
            yield from _images(value)
