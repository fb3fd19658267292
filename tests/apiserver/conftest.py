"""Fixtures: one API server per pytest worker, with the CRD of this checkout, and a namespace per test module.

Each worker starts its own API server: this takes 4 s and 2 s of CPU time, less than workers would wait for each other.
"""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.status.metrics import Metrics
from tests.apiserver import crds
from tests.apiserver.client import Client
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.kubectl import Kubectl
from tests.apiserver.processes import Missing, find

PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "helm")


def pytest_configure() -> None:
    """Stop with a usage error if a program is missing."""
    try:
        for program in PROGRAMS:
            find(program)
    except Missing as missing:
        raise pytest.UsageError(str(missing)) from None


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver."""
    control_plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    crds.install(control_plane.client)
    yield control_plane
    control_plane.stop()


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Client:
    """A client with all permissions."""
    return control_plane.client


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubernetesClient]:
    """The Kubernetes client of the operator."""
    connected = await KubernetesClient.connect(Metrics(), str(control_plane.kubeconfig))
    yield connected
    await connected.close()


@pytest.fixture(scope="module")
def namespace(admin: Client) -> str:
    """A namespace for this module. It is not deleted, because the data of the API server is temporary."""
    return create_namespace(admin, "test")


def create_namespace(client: Client, prefix: str) -> str:
    """Create a namespace with a random name and return the name."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    client.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, namespace: str) -> Kubectl:
    """kubectl in the module's namespace."""
    return Kubectl(control_plane.kubeconfig, namespace)
