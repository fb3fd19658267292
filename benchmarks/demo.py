"""The server that `make demo` leaves running: suspended while figures are measured, so that it takes no resources."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.demo.__main__ import NAMESPACE
from tests.e2e import timeouts
from tests.e2e.kube import Object
from tests.e2e.server import SERVER_LABEL

from benchmarks.capacity import TERMINATED
from benchmarks.waits import Waits

SUSPENDED = "mlflow-operator.dev/suspended-by-bench"
"""Annotation of a server that benchmarks have suspended: a run that was killed leaves it, and the next run resumes the
server."""


def to_suspend(servers: list[Object]) -> list[str]:
    """Names of the demo's servers that run, or that an earlier run suspended and did not resume."""
    return [
        str(server["metadata"]["name"])
        for server in servers
        if server["metadata"]["namespace"] == NAMESPACE
        and (not server["spec"].get("suspend") or SUSPENDED in (server["metadata"].get("annotations") or {}))
    ]


@contextmanager
def suspended(waits: Waits) -> Iterator[None]:
    """Suspends the demo's servers and resumes them when the context ends, whatever ends it. Their data stays."""
    names = to_suspend(waits.cluster().servers)
    kube = waits.kube.within(NAMESPACE)

    def change(name: str, *, suspend: bool) -> None:
        annotations = {SUSPENDED: "true" if suspend else None}
        kube.patch(
            "MLflowServer", name, {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}
        )

    def stopped() -> bool:
        pods = (pod for name in names for pod in kube.list("Pod", {SERVER_LABEL: name}))
        return all((pod.get("status") or {}).get("phase") in TERMINATED for pod in pods)

    try:
        for name in names:
            waits.say(
                f"suspending MLflowServer {NAMESPACE}/{name} until the figures are measured; its data stays. "
                "If this run is killed, resume it with:\n"
                f"           {resume_command(waits.kubectl, name)}"
            )
            change(name, suspend=True)
        if names:
            waits.until("the pods of the demo's server are gone", stopped, timeouts.GONE)
        yield
    finally:
        for name in names:
            try:
                if kube.get("MLflowServer", name) is None:
                    continue
                change(name, suspend=False)
                waits.say(f"MLflowServer {NAMESPACE}/{name} is resumed; it is Ready again in about a minute")
            except Exception as error:
                waits.say(
                    f"MLflowServer {NAMESPACE}/{name} could not be resumed: {error}\n"
                    f"To resume it, run: {resume_command(waits.kubectl, name)}"
                )


def resume_command(kubectl: str, name: str) -> str:
    """The command by which a user resumes a server of the demo."""
    return f"""{kubectl} -n {NAMESPACE} patch mlflowserver {name} --type=merge -p '{{"spec":{{"suspend":false}}}}'"""
