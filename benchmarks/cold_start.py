"""Time from `kubectl apply` of `spec: {}` until a first run is logged, compared with the rendered manifests."""

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
from benchmarks.rows import Row, ratio_at_most
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS

NAME = "tracking"
MAX_RATIO = 1.3


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the server, its embedded stores, and the migration Job, which may still be terminating."""
    parts = (
        sizing.server(workers=2, job_execution=False, fast_path=True),
        sizing.postgres(),
        sizing.artifact_store(),
        sizing.migration(),
    )
    return sum((Resources.of(part["requests"]) for part in parts), Resources())


def measure(lab: Lab) -> list[Row]:
    """Return one row. Both measurements alternate."""
    operator_seconds: list[float] = []
    baseline_seconds: list[float] = []
    for round_number in range(lab.rounds):
        operator_seconds.append(_measure_one(lab, lambda kube: [resource()]))
        baseline_seconds.append(_measure_one(lab, rendered_with_waits))
        lab.log(
            f"round {round_number + 1}: {operator_seconds[-1]:.1f} s, rendered manifests {baseline_seconds[-1]:.1f} s"
        )
    return [
        ratio_at_most(
            "`spec: {}` until a first run is logged",
            operator_seconds,
            baseline_seconds,
            MAX_RATIO,
            baseline_name="rendered manifests",
        )
    ]


def resource() -> Object:
    """Return an MLflowServer with an empty spec."""
    return {"apiVersion": API_VERSION, "kind": "MLflowServer", "metadata": {"name": NAME}, "spec": {}}


def _measure_one(lab: Lab, create_objects: Callable[[Kube], list[Object]]) -> float:
    with lab.namespace("cold") as kube:
        kube.apply(plain.server_node_port(NAME))
        port = kube.require("Service", "door")["spec"]["ports"][0]["nodePort"]
        api = Api((kube.node_address, port), f"{NAME}.{kube.namespace}.svc:{plain.PORT}", timeout_seconds=5)
        objects = create_objects(kube)
        start = time.monotonic()
        kube.apply(*objects)
        return lab.wait_for("a first run is logged", api.can_log_run, timeouts.READY_SECONDS) - start


def rendered_with_waits(kube: Kube) -> list[Object]:
    """Return the rendered manifests with init containers that wait for each pod's dependencies."""
    return plain.add_init_containers(
        rendered(kube.namespace), kube.settings.pins["IMAGE_POSTGRES"], SCHEMA_HEADS[DEFAULT_VERSION]
    )


def rendered(namespace: str) -> list[Object]:
    """Return the objects that `mlflow-operator render` prints for the MLflowServer."""
    command = [sys.executable, "-m", "mlflow_operator.cli", "render", "-n", namespace, "--with-secrets"]
    done = subprocess.run(
        [*command, "-f", "-"],
        input=yaml.safe_dump(resource()),
        text=True,
        capture_output=True,
        check=True,
    )
    return [document for document in yaml.safe_load_all(done.stdout) if document]
