"""Fixtures: a cluster with simulated pods and a Postgres per pytest worker, one operator, a namespace per test."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.apiserver.processes import Missing, find
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.chart.rendering import RELEASE, Values, render
from tests.integration.cluster import Cluster
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server, external_spec
from tests.polling import eventually

REQUIRED_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "helm")


def pytest_configure() -> None:
    """End the run with an error message if a program is missing."""
    try:
        for program in REQUIRED_PROGRAMS:
            find(program, "operator")
    except Missing as missing:
        raise pytest.UsageError(str(missing)) from None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Control plane and simulated node, with the chart's service account, roles and admission policy."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    chart_rbac.install(running.client, {}, chart_rbac.ALL)
    with running.control_plane.client_for(chart_rbac.token(running.client, RELEASE)) as operator:
        chart_rbac.wait_until_enforced(operator, "default")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres on loopback."""
    running = Postgres()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Client:
    """A client with all rights."""
    return cluster.client


@dataclass
class Operators:
    """Starts operators as the chart installs them. `default` is the one that most tests share."""

    cluster: Cluster
    folder: Path
    default: Operator | None = None
    started: list[Operator] = field(default_factory=list)

    def start(self, values: Values | None = None) -> Operator:
        """Start an operator with the arguments and the service account of the chart, rendered with these values.

        Roles and service account must be installed.
        """
        arguments, kubeconfig = self.command(values)
        log = self.folder / f"operator-{len(self.started)}.log"
        operator = Operator(arguments, kubeconfig, log, OPERATOR_NAMESPACE)
        self.started.append(operator)
        return operator

    def command(self, values: Values | None = None) -> tuple[list[str], Path]:
        """Return the arguments of the chart's Deployment, and a kubeconfig with a token of its service account."""
        (deployment,) = (obj for obj in render(values) if obj["kind"] == "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        kubeconfig = self.cluster.control_plane.write_kubeconfig(
            self.folder / f"kubeconfig-{uuid.uuid4().hex[:8]}",
            chart_rbac.token(self.cluster.client, pod["serviceAccountName"]),
        )
        return list(pod["containers"][0]["args"]), kubeconfig

    def start_default(self) -> Operator:
        """Return the shared operator; starts it if it does not run."""
        if self.default is None:
            self.default = self.start()
        return self.default

    def stop_all(self) -> None:
        """Stop every running operator; they release their Lease."""
        self.default = None
        for operator in self.started:
            operator.process.stop()

    def kill_all(self) -> None:
        """Kill every operator without waiting for it to release its Lease."""
        for operator in self.started:
            operator.process.kill()


@pytest.fixture(scope="session")
def _operators(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    running = Operators(cluster, tmp_path_factory.mktemp("operators"))
    yield running
    running.kill_all()


@pytest.fixture
def operator(_operators: Operators) -> Iterator[Operator]:
    """The shared operator, which is the leader. After the test it must still run and have logged no error."""
    running = _operators.start_default()
    eventually("the operator leads", running.is_leader)
    errors_before, lines_before = len(running.error_messages()), len(running.process.lines())
    yield running
    # pytest shows this output if the test failed.
    print("Log of the operator:", *running.process.lines()[lines_before:], sep="\n")
    assert running.process.returncode is None, running.process.tail()
    assert running.error_messages()[errors_before:] == []


@pytest.fixture
def operators(_operators: Operators) -> Iterator[Operators]:
    """Starts operators for the test. No other operator runs meanwhile, and all are stopped afterwards."""
    _operators.stop_all()
    yield _operators
    _operators.stop_all()


@pytest.fixture
def namespace(admin: Client) -> Iterator[str]:
    """The test's own namespace, with the restricted Pod Security level."""
    yield from _namespace(admin)


@pytest.fixture
def other_namespace(admin: Client) -> Iterator[str]:
    """A second namespace of the test."""
    yield from _namespace(admin)


def _namespace(client: Client) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    client.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    yield name
    if client.get(kinds.NAMESPACE, None, name):
        client.delete(kinds.NAMESPACE, None, name)


@pytest.fixture
def spec(admin: Client, namespace: str, postgres: Postgres) -> Object:
    """A spec that becomes Ready in the test's namespace."""
    return external_spec(admin, namespace, postgres)


@pytest.fixture
def server(operator: Operator, admin: Client, namespace: str, spec: Object) -> Server:
    """A server that is Ready."""
    return Server(admin, namespace).apply(spec).wait_ready()
