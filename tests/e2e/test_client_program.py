"""A client program runs outside the cluster and in a pod. test_workflows runs all programs."""

import pytest

from tests.e2e.programs import ProgramRuns, dns_names
from tests.e2e.server import Server

GROUP = "shared"

PROGRAM = "iris.py"
"""Needs no packages besides those in MLflow's image."""


@pytest.fixture
def runs(shared_server: Server) -> ProgramRuns:
    """Runs on the shared server, in pods with MLflow's image."""
    ns, names = shared_server.kube.namespace, shared_server.names
    store_hosts = [name for host in (names.postgres, names.artifact_store) for name in dns_names(host, ns)]
    return ProgramRuns(shared_server, tuple(store_hosts), shared_server.kube.settings.pins["IMAGE_MLFLOW"])


def test_program_runs_outside_the_cluster(runs: ProgramRuns) -> None:
    """With the plain client and the server's URL. The program itself checks what it reads back."""
    runs.run_outside(PROGRAM)


def test_program_runs_in_a_pod(runs: ProgramRuns) -> None:
    """With `envFrom` of the ConfigMap for clients and no other configuration. The stores are not reachable."""
    runs.run_in_pod(PROGRAM)
