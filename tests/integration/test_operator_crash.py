"""The operator is killed right after each of its writes: the next one finishes what it began."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.apiserver.processes import free_port
from tests.chart.rendering import NAMESPACE, RELEASE
from tests.cluster import settings
from tests.integration.conftest import Operators
from tests.integration.postgres import Postgres
from tests.integration.server import Server, eventually, external

MORTAL = settings.ROOT / "tests" / "mortal.py"
AT_A_TIME = 2
KILLED = -9
LIFE_SECONDS = 120.0
KINDS = (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET, kinds.JOB, kinds.POD)


@pytest.fixture
def leases(admin: Client) -> Iterator[None]:
    """The right to any Lease: the chart grants one of a fixed name, which a killed operator still holds."""
    group, name = "rbac.authorization.k8s.io", "mortal"
    metadata: Object = {"name": name, "namespace": NAMESPACE}
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    }
    role: Object = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}
    binding: Object = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}],
    }
    path = f"/apis/{group}/v1/namespaces/{NAMESPACE}"
    admin.request("POST", f"{path}/roles", role)
    admin.request("POST", f"{path}/rolebindings", binding)
    yield
    admin.request("DELETE", f"{path}/rolebindings/{name}")
    admin.request("DELETE", f"{path}/roles/{name}")


@pytest.mark.long_running(
    reason="a dozen operators; tests/unit/controller crashes at each write of a simulated cluster"
)
def test_first_reconcile_resumes_after_a_crash_at_any_write(
    operators: Operators, admin: Client, postgres: Postgres, leases: None
) -> None:
    """For each N below the number of writes from `kubectl apply` until Ready, a server whose operator died there."""
    arguments, kubeconfig = operators.command()

    def create() -> Server:
        namespace = f"crash-{uuid.uuid4().hex[:8]}"
        admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return Server(admin, namespace).apply(external(admin, namespace, postgres))

    def live(server: Server, writes: int) -> list[str]:
        return killed_after(writes, arguments, kubeconfig, server.namespace)

    whole = create()
    writes = live(whole, 0)
    print("a first reconcile writes", *writes, sep="\n  ")
    assert len(writes) > len(KINDS)
    cut = {number: create() for number in range(1, len(writes))}

    def die(number: int) -> None:
        written = live(cut[number], number)
        # How often the status changes while a pod starts differs from one time to the next.
        assert len(written) == number or len(written) >= len(writes) - 2, written

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(die, cut))
    operator = operators.start()
    expected = census(whole.ready())
    for number, server in cut.items():
        server.ready()
        eventually(f"server {number} consists of {expected}", partial(consists_of, server, expected))
    assert operator.complaints() == []
    for server in (whole, *cut.values()):
        admin.delete(kinds.NAMESPACE, None, server.namespace)


def killed_after(writes: int, arguments: list[str], kubeconfig: Path, namespace: str) -> list[str]:
    """Run an operator for one namespace until its Nth write, or until the server is Ready if N is 0.

    Returns what it wrote.
    """
    done = subprocess.run(
        [
            *(sys.executable, str(MORTAL), "writes", str(writes), *arguments),
            *(f"--port={free_port()}", f"--namespace={namespace}", f"--lease-namespace={NAMESPACE}"),
            # Of its own, because the one before has given nothing back.
            f"--lease-name=mortal-{uuid.uuid4().hex[:8]}",
        ],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "NO_PROXY": "127.0.0.1"},
        text=True,
        capture_output=True,
        check=False,
        timeout=LIFE_SECONDS,
    )
    assert done.returncode == KILLED, f"it ended by itself:\n{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def consists_of(server: Server, expected: dict[str, int]) -> bool:
    """Whether these are all objects of its namespace."""
    return census(server) == expected


def census(server: Server) -> dict[str, int]:
    """How many objects of each kind there are, those that are being deleted left out."""
    return {
        kind.kind: sum("deletionTimestamp" not in found["metadata"] for found in server.objects(kind))
        for kind in KINDS
    }
