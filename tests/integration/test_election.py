"""Leader election: one operator works, and a standby takes over when the leader exits, is killed or hangs."""

import signal

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.chart.rendering import NAMESPACE, RELEASE
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.polling import eventually

EXIT_SECONDS = 30.0
RELEASE_MESSAGES = {"released the lease", "cannot release the lease: no response in time"}


def check_operator_works(server: Server, operator: Operator) -> None:
    """Check that the operator recreates a deleted object and logs that."""
    name = server.names.client
    old = server.require(kinds.CONFIGMAP, name)["metadata"]["uid"]
    server.client.delete(kinds.CONFIGMAP, server.namespace, name)

    def created() -> bool:
        found = server.get(kinds.CONFIGMAP, name)
        return found is not None and found["metadata"]["uid"] != old

    eventually("the ConfigMap is recreated", created)
    # The object can be read before the operator receives the response to its request and logs it.
    line = f"created ConfigMap {server.namespace}/{name}"
    eventually("the operator logs what it created", lambda: line in operator.messages())


def holder_identity(admin: Client) -> str:
    """Return the identity of the Lease's holder; empty if the Lease was released."""
    return str(admin.need(kinds.LEASE, NAMESPACE, RELEASE)["spec"].get("holderIdentity") or "")


def test_standby_takes_over_after_sigterm_and_after_sigkill(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """After SIGTERM the leader releases its Lease and exits with 0; after SIGKILL the Lease expires.

    The release is a single attempt. If the API server is too busy to answer it in time, the Lease expires as well.
    """
    first = operators.start()
    eventually("the first operator leads", first.is_leader)
    second = operators.start()
    server = Server(admin, namespace).apply(spec).wait_ready()
    check_operator_works(server, first)
    eventually("the second stands by", lambda: any("standing by" in line for line in second.messages()))
    assert not second.is_leader()
    assert not any("created" in line for line in second.messages())

    first_identity = holder_identity(admin)
    first.process.send(signal.SIGTERM)
    assert first.process.wait(EXIT_SECONDS) == 0
    assert RELEASE_MESSAGES & set(first.messages()), first.process.tail()
    eventually("the second operator leads", second.is_leader)
    assert holder_identity(admin) != first_identity
    check_operator_works(server, second)
    third = operators.start()

    killed_identity = holder_identity(admin)
    second.process.kill()
    assert holder_identity(admin) == killed_identity
    eventually("the third operator leads", third.is_leader)
    assert holder_identity(admin) != killed_identity
    check_operator_works(server, third)
    assert first.error_messages() == second.error_messages() == third.error_messages() == []


def test_leader_that_hung_exits_after_another_leads(
    operators: Operators, admin: Client, namespace: str, spec: Object
) -> None:
    """Two operators never work in parallel: a process that resumes after its Lease expired exits at once."""
    first = operators.start()
    eventually("the first operator leads", first.is_leader)
    second = operators.start()
    server = Server(admin, namespace).apply(spec).wait_ready()

    first.process.send(signal.SIGSTOP)
    eventually("the second operator leads", second.is_leader)
    second_identity = holder_identity(admin)
    first.process.send(signal.SIGCONT)
    assert first.process.wait(EXIT_SECONDS) == 1
    assert holder_identity(admin) == second_identity
    check_operator_works(server, second)
