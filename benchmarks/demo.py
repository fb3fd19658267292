"""Suspends the server of `make demo` during the benchmarks, so that it uses no resources."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.demo.__main__ import NAMESPACE
from tests.e2e import timeouts
from tests.e2e.kube import Object
from tests.e2e.server import SERVER_LABEL

from benchmarks.capacity import TERMINATED_PHASES
from benchmarks.waits import Waits

SUSPENDED_ANNOTATION = "mlflow-operator.dev/suspended-by-bench"
"""Annotation of a server that the benchmarks have suspended. If a run is killed, the annotation stays, and the next run
resumes the server."""


def servers_to_suspend(servers: list[Object]) -> list[str]:
    """Return the names of the demo's servers that run, or that an earlier run suspended and did not resume."""
    return [
        str(server["metadata"]["name"])
        for server in servers
        if server["metadata"]["namespace"] == NAMESPACE
        and (
            not server["spec"].get("suspend")
            or SUSPENDED_ANNOTATION in (server["metadata"].get("annotations") or {})
        )
    ]


@contextmanager
def suspended(waits: Waits) -> Iterator[None]:
    """Suspend the demo's servers, and resume them at the end of the context, also after an error. Their data stays."""
    names = servers_to_suspend(waits.cluster().servers)
    kube = waits.kube.in_namespace(NAMESPACE)

    def change(name: str, *, suspend: bool) -> None:
        annotations = {SUSPENDED_ANNOTATION: "true" if suspend else None}
        kube.patch(
            "MLflowServer", name, {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}
        )

    def stopped() -> bool:
        pods = (pod for name in names for pod in kube.list("Pod", {SERVER_LABEL: name}))
        return all((pod.get("status") or {}).get("phase") in TERMINATED_PHASES for pod in pods)

    try:
        for name in names:
            waits.log(
                f"suspending MLflowServer {NAMESPACE}/{name} during the benchmarks; its data stays. "
                "If this run is killed, resume it with:\n"
                f"           {resume_command(waits.kubectl, name)}"
            )
            change(name, suspend=True)
        if names:
            waits.wait_for("the pods of the demo's server are gone", stopped, timeouts.DELETION_SECONDS)
        yield
    finally:
        for name in names:
            try:
                if kube.get("MLflowServer", name) is None:
                    continue
                change(name, suspend=False)
                waits.log(f"resumed MLflowServer {NAMESPACE}/{name}; it is Ready again in about a minute")
            except Exception as error:
                waits.log(
                    f"MLflowServer {NAMESPACE}/{name} could not be resumed: {error}\n"
                    f"To resume it, run: {resume_command(waits.kubectl, name)}"
                )


def resume_command(kubectl: str, name: str) -> str:
    """Return the command by which a user resumes a server of the demo."""
    return f"""{kubectl} -n {NAMESPACE} patch mlflowserver {name} --type=merge -p '{{"spec":{{"suspend":false}}}}'"""
