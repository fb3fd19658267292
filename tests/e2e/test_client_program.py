"""A program of a data scientist works outside the cluster and in a pod; test_workflows runs all programs."""

import pytest

from tests.e2e.programs import Workbench, all_names
from tests.e2e.server import Server

GROUP = "shared"

PROGRAM = "iris.py"
"""It needs no more than MLflow's own image holds."""


@pytest.fixture
def simple(shared: Server) -> Workbench:
    """A small server, and pods with MLflow's image."""
    ns, names = shared.kube.namespace, shared.names
    hidden = [name for host in (names.postgres, names.artifact_store) for name in all_names(host, ns)]
    return Workbench(shared, tuple(hidden), shared.kube.settings.pins["IMAGE_MLFLOW"])


def test_a_program_works_outside_the_cluster(simple: Workbench) -> None:
    """With the plain client and the server's URL; the program itself checks that all came back."""
    simple.outside(PROGRAM)


def test_a_program_works_in_a_pod(simple: Workbench) -> None:
    """With `envFrom` of the ConfigMap for clients and nothing else; no way leads to the stores."""
    simple.in_pod(PROGRAM)
