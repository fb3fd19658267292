"""The API server accepts every file in manifests/examples."""

from pathlib import Path

import pytest
import yaml

from tests.apiserver.kubectl import Kubectl
from tests.cluster.settings import ROOT

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted(kubectl: Kubectl, namespace: str, example: Path) -> None:
    """Strict validation, CEL rules and admission accept every object."""
    objects = [*yaml.safe_load_all(example.read_text())]
    for obj in objects:
        # The namespaces of the examples do not exist in this API server.
        if obj["kind"] != "Namespace":
            obj["metadata"]["namespace"] = namespace
    printed = kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert printed.count("server dry run") == len(objects)
