"""The operator crashes right after each of its writes; the next operator completes the work."""

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
from tests.integration.server import Server, external_spec
from tests.polling import eventually

PROGRAM = settings.ROOT / "tests" / "operator_crash.py"
PARALLEL_OPERATORS = 2
SIGKILL_RETURN_CODE = -9
TIMEOUT_SECONDS = 120.0
KINDS = (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONFIGMAP, kinds.SECRET, kinds.JOB, kinds.POD)


@pytest.fixture
def lease_permissions(admin: Client) -> Iterator[None]:
    """Grants access to all Leases: the chart only grants the operator's Lease, which a crashed operator still holds."""
    group, name = "rbac.authorization.k8s.io", "operator-crash"
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
    reason="starts a dozen operators; tests/unit/test_reconciler.py crashes at each write of a simulated cluster"
)
def test_first_reconcile_resumes_after_crash_at_any_write(
    operators: Operators, admin: Client, postgres: Postgres, lease_permissions: None
) -> None:
    """For each N below the number of writes until Ready, one server whose operator crashed after the Nth write."""
    arguments, kubeconfig = operators.command()

    def create() -> Server:
        namespace = f"crash-{uuid.uuid4().hex[:8]}"
        admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return Server(admin, namespace).apply(external_spec(admin, namespace, postgres))

    def reconcile(server: Server, writes: int) -> list[str]:
        return run_until_crash(writes, arguments, kubeconfig, server.namespace)

    complete_server = create()
    writes = reconcile(complete_server, 0)
    print("writes of a first reconcile:", *writes, sep="\n  ")
    assert len(writes) > len(KINDS)
    servers = {number: create() for number in range(1, len(writes))}

    def crash_after(number: int) -> None:
        actual = reconcile(servers[number], number)
        # With fewer statuses or Events than in the first run, the server is Ready before the Nth write.
        assert len(actual) == number or object_writes(actual) == object_writes(writes), actual

    with ThreadPoolExecutor(PARALLEL_OPERATORS) as pool:
        list(pool.map(crash_after, servers))
    operator = operators.start()
    expected = object_counts(complete_server.wait_ready())
    for number, server in servers.items():
        server.wait_ready()
        eventually(f"server {number} has the objects {expected}", partial(has_objects, server, expected))
    assert operator.error_messages() == []
    for server in (complete_server, *servers.values()):
        admin.delete(kinds.NAMESPACE, None, server.namespace)


def run_until_crash(writes: int, arguments: list[str], kubeconfig: Path, namespace: str) -> list[str]:
    """Run an operator for one namespace until its Nth write, or until the server is Ready if N is 0.

    Returns its writes.
    """
    done = subprocess.run(
        [
            *(sys.executable, str(PROGRAM), "writes", str(writes), *arguments),
            *(f"--port={free_port()}", f"--namespace={namespace}", f"--lease-namespace={NAMESPACE}"),
            # A separate Lease, because the previous operator crashed without releasing its Lease.
            f"--lease-name=operator-crash-{uuid.uuid4().hex[:8]}",
        ],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "NO_PROXY": "127.0.0.1"},
        text=True,
        capture_output=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == SIGKILL_RETURN_CODE, (
        f"the operator ended without a crash:\n{done.stdout}{done.stderr}"
    )
    return done.stdout.splitlines()


def object_writes(writes: list[str]) -> list[str]:
    """Return the writes, sorted and without namespaces, except those of statuses and Events.

    The number of statuses and Events depends on how often the operator reconciles while a pod starts.
    """
    actions = [
        write.split(" ") for write in writes if not write.endswith(" status") and " Event " not in write
    ]
    return sorted(f"{verb} {kind} {path.rpartition('/')[2]}" for verb, kind, path in actions)


def has_objects(server: Server, expected: dict[str, int]) -> bool:
    """Whether the namespace has exactly these numbers of objects by kind."""
    return object_counts(server) == expected


def object_counts(server: Server) -> dict[str, int]:
    """Return the number of objects by kind, without those that are being deleted."""
    return {
        kind.kind: sum("deletionTimestamp" not in obj["metadata"] for obj in server.objects(kind))
        for kind in KINDS
    }
