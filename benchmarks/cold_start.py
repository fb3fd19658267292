"""Time from `kubectl apply` of `spec: {}` until a first run is logged, beside the same objects applied by hand."""

import subprocess
import sys
import time
from collections.abc import Callable

import yaml
from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION

from benchmarks import plain
from benchmarks.capacity import Resources
from benchmarks.client import Api
from benchmarks.lab import Lab
from benchmarks.rows import Row, at_most
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS

NAME = "tracking"
LIMIT = 1.3


def peak_requests(_quick: bool) -> Resources:
    """Of the server and its embedded stores, and of the migration Job, which may still be terminating."""
    parts = (
        sizing.server(workers=2, job_execution=False, once=True),
        sizing.postgres(),
        sizing.artifact_store(),
        sizing.migration(),
    )
    return sum((Resources.of(part["requests"]) for part in parts), Resources())


def take(lab: Lab) -> list[Row]:
    """One row; both ways alternate."""
    ours: list[float] = []
    against: list[float] = []
    for turn in range(lab.rounds):
        ours.append(_one(lab, lambda kube: [resource()]))
        against.append(_one(lab, by_hand))
        lab.say(f"round {turn + 1}: {ours[-1]:.1f} s, by hand {against[-1]:.1f} s")
    return [
        at_most("`spec: {}` until a first run is logged", ours, against, LIMIT, what="rendered and applied")
    ]


def resource() -> Object:
    """The smallest MLflowServer."""
    return {"apiVersion": API_VERSION, "kind": "MLflowServer", "metadata": {"name": NAME}, "spec": {}}


def _one(lab: Lab, made: Callable[[Kube], list[Object]]) -> float:
    with lab.namespace("cold") as kube:
        kube.apply(plain.door(NAME))
        port = kube.need("Service", "door")["spec"]["ports"][0]["nodePort"]
        api = Api((kube.node_address, port), f"{NAME}.{kube.namespace}.svc:{plain.PORT}", seconds=5)
        objects = made(kube)
        began = time.monotonic()
        kube.apply(*objects)
        return lab.until("a first run is logged", api.first_run, timeouts.READY) - began


def by_hand(kube: Kube) -> list[Object]:
    """The same objects; each pod waits for what it depends on."""
    return plain.waiting(
        rendered(kube.namespace), kube.settings.pins["IMAGE_POSTGRES"], SCHEMA_HEADS[DEFAULT_VERSION]
    )


def rendered(namespace: str) -> list[Object]:
    """The objects that `mlflow-operator render` prints for it."""
    command = [sys.executable, "-m", "mlflow_operator.cli", "render", "-n", namespace, "--with-secrets"]
    done = subprocess.run(
        [*command, "-f", "-"],
        input=yaml.safe_dump(resource()),
        text=True,
        capture_output=True,
        check=True,
    )
    return [document for document in yaml.safe_load_all(done.stdout) if document]
