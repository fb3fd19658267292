"""Recorded manifests of the examples. `python -m tests.unit.snapshots` updates them."""

from pathlib import Path

import yaml

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
RECORDED_MANIFESTS = Path(__file__).parent / "recorded_manifests"


def objects(example: Path) -> list[Object]:
    """The objects that the operator creates for an example, except Secrets."""
    documents = [d for d in yaml.safe_load_all(example.read_text()) if d and d["kind"] == api.KIND]
    return [
        obj
        for document in documents
        for obj in desired.objects(resolve(api.parse(document), ClusterDefaults(Images())))
    ]


def manifest(example: Path) -> str:
    """The manifest of an example, as `mlflow-operator render` prints it."""
    return desired.as_yaml(objects(example))


if __name__ == "__main__":
    RECORDED_MANIFESTS.mkdir(exist_ok=True)
    for path in EXAMPLES:
        (RECORDED_MANIFESTS / path.name).write_text(manifest(path))
