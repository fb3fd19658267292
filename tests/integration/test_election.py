"""Leader election between operators: one works, another takes over when it ends, is killed or hangs."""

import signal

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.chart.rendering import NAMESPACE, RELEASE
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server, eventually

EXIT_SECONDS = 30.0


def restores(server: Server, operator: Operator) -> None:
    """The operator is at work: a deleted object is created again, and its log says so."""
    name = server.names.client
    old = server.need(kinds.CONFIGMAP, name)["metadata"]["uid"]
    server.client.delete(kinds.CONFIGMAP, server.namespace, name)

    def created() -> bool:
        found = server.get(kinds.CONFIGMAP, name)
        return found is not None and found["metadata"]["uid"] != old

    eventually("the ConfigMap is created again", created)
    # The object can be read before the operator gets the answer to its request and logs it.
    line = f"created ConfigMap {server.namespace}/{name}"
    eventually("the operator logs what it created", lambda: line in operator.messages())


def holder(admin: Client) -> str:
    """Who holds the Lease; empty if it was given back."""
    return str(admin.need(kinds.LEASE, NAMESPACE, RELEASE)["spec"].get("holderIdentity") or "")


def test_standby_takes_over_after_sigterm_and_after_sigkill(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """After SIGTERM the leader gives its Lease back and exits with 0; after SIGKILL the Lease runs out."""
    first = operators.start()
    eventually("the first operator leads", first.leads)
    second = operators.start()
    server = Server(admin, namespace).apply(spec).ready()
    restores(server, first)
    eventually("the second stands by", lambda: any("stands by" in line for line in second.messages()))
    assert not second.leads()
    assert not any("created" in line for line in second.messages())

    first.process.send(signal.SIGTERM)
    assert first.process.wait(EXIT_SECONDS) == 0
    assert "gave the lease back" in first.messages()
    eventually("the second operator leads", second.leads)
    restores(server, second)
    third = operators.start()

    dead = holder(admin)
    second.process.kill()
    assert holder(admin) == dead
    eventually("the third operator leads", third.leads)
    assert holder(admin) != dead
    restores(server, third)
    assert first.complaints() == second.complaints() == third.complaints() == []


def test_leader_that_hung_ends_when_another_leads(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """Two never work at the same time: a process that comes back after its Lease ran out exits at once."""
    first = operators.start()
    eventually("the first operator leads", first.leads)
    second = operators.start()
    server = Server(admin, namespace).apply(spec).ready()

    first.process.send(signal.SIGSTOP)
    eventually("the second operator leads", second.leads)
    taken = holder(admin)
    first.process.send(signal.SIGCONT)
    assert first.process.wait(EXIT_SECONDS) == 1
    assert holder(admin) == taken
    restores(server, second)
