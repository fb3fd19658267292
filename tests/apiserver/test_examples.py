"""Every file in manifests/examples is accepted by the API server as it is."""

from pathlib import Path

import pytest
import yaml

from tests.apiserver.kubectl import Kubectl
from tests.cluster.settings import ROOT

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted(kubectl: Kubectl, namespace: str, example: Path) -> None:
    """kubectl's strict validation, defaults, rules and admission accept each object."""
    objects = [*yaml.safe_load_all(example.read_text())]
    for obj in objects:
        # The namespaces that examples name do not exist here.
        if obj["kind"] != "Namespace":
            obj["metadata"]["namespace"] = namespace
    printed = kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert printed.count("server dry run") == len(objects)
