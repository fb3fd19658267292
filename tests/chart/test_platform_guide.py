"""The kustomization in docs/guides/set-up-platform.md adds verified TLS to manifests/examples/platform.yaml."""

import re
import shutil
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tests.chart.kubeconform import TESTED_KUBERNETES, schema_errors
from tests.cluster.settings import ROOT
from tests.generate import tool

GUIDE = ROOT / "docs" / "guides" / "set-up-platform.md"
EXAMPLE = ROOT / "manifests" / "examples" / "platform.yaml"
HEADING = "### TLS for the stores of the example\n"

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """What `kubectl apply -k` applies, by kind and name, with files in place of the certificates."""
    directory = tmp_path_factory.mktemp("platform")
    section = GUIDE.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    (text,) = re.findall(r"^ *```yaml\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    kustomization = dedent(text)
    (directory / "kustomization.yaml").write_text(kustomization)
    shutil.copy(EXAMPLE, directory)
    for generator in yaml.safe_load(kustomization)["secretGenerator"]:
        for file in generator["files"]:
            (directory / file.split("=")[-1]).write_text("certificate")
    documents = yaml.safe_load_all(tool("kubectl", "kustomize", str(directory)))
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def test_objects_match_their_schemas(objects: Objects) -> None:
    """The namespaces of the stores and of the team are those of the example."""
    assert schema_errors(objects.values(), TESTED_KUBERNETES) == []
    example = [*yaml.safe_load_all(EXAMPLE.read_text())]
    assert {(obj["kind"], obj["metadata"]["name"]) for obj in example} < objects.keys()


def test_both_stores_are_verified(objects: Objects) -> None:
    spec = objects["MLflowPlatform", "shared"]["spec"]
    postgres, s3 = spec["database"]["postgres"], spec["artifacts"]["s3"]
    assert postgres["tls"] == {"mode": "VerifyFull", "caSecretRef": {"name": "ca"}}
    assert s3["endpoint"].startswith("https://")
    assert s3["tls"] == {"caSecretRef": {"name": "ca"}}
    assert objects["Secret", "ca"]["metadata"]["namespace"] == spec["secretsNamespace"]


@pytest.mark.parametrize("store", ["postgres", "minio"])
def test_private_key_is_mounted(objects: Objects, store: str) -> None:
    """PostgreSQL rejects a key that others can read. `args` refer to the files of the Secret."""
    pod = objects["StatefulSet", store]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["certificate"]["secret"] == {"secretName": f"{store}-certificate", "defaultMode": 0o440}
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["certificate"] in " ".join(container["args"])
    assert "data" in mounts


def test_platform_is_applied_before_the_server(objects: Objects) -> None:
    """A server that exists before its default platform gets embedded stores. kubectl applies in this order."""
    example = [document["kind"] for document in yaml.safe_load_all(EXAMPLE.read_text())]
    for kinds in (example, [kind for kind, _ in objects]):
        assert kinds.index("MLflowPlatform") < kinds.index("MLflowServer")
