"""Records of the objects that each example leads to. `python -m tests.unit.snapshots` writes them anew."""

from pathlib import Path

import yaml

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
RECORDS = Path(__file__).parent / "recorded_manifests"


def objects(example: Path) -> list[Object]:
    """What the operator makes of an example, Secrets aside."""
    documents = [d for d in yaml.safe_load_all(example.read_text()) if d and d["kind"] == api.KIND]
    return [
        obj
        for document in documents
        for obj in desired.objects(resolve(api.parse(document), ClusterDefaults(Images())))
    ]


def text(example: Path) -> str:
    """The record of an example, one key order for all time."""
    return yaml.safe_dump_all(objects(example), sort_keys=True, width=110)


if __name__ == "__main__":
    RECORDS.mkdir(exist_ok=True)
    for path in EXAMPLES:
        (RECORDS / path.name).write_text(text(path))
