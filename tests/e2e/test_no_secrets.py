"""Passwords and keys are in Secrets, and nowhere else."""

import json

from tests.e2e import release
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server

PROCESSES = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f 2>/dev/null; echo; done"


def test_no_generated_secret_is_anywhere_but_in_secrets(shared: Server) -> None:
    """Looked for, plain: logs of every pod and of the operator, events, all objects, all command lines."""
    Scientist(shared.url).work("secrets")
    kube = shared.kube
    places = {"the operator's log": operator_log(shared)}
    for kind in (
        "MLflowServer",
        "Deployment",
        "StatefulSet",
        "ReplicaSet",
        "Service",
        "ConfigMap",
        "Job",
        "Pod",
        "Event",
        "PersistentVolumeClaim",
    ):
        places[f"{kind}s"] = json.dumps(kube.list(kind))
    for secret in kube.list("Secret"):
        places[f"metadata of Secret {secret['metadata']['name']}"] = json.dumps(secret["metadata"])
    for pod in shared.pods():
        name = pod["metadata"]["name"]
        places[f"the log of {name}"] = kube.kubectl("logs", name, "--all-containers")
        if pod["status"]["phase"] == "Running":
            places[f"the processes of {name}"] = kube.kubectl("exec", name, "--", "sh", "-c", PROCESSES)
    assert "mlflow" in places[f"the processes of {shared.pod()['metadata']['name']}"], "no process was seen"

    found = [
        f"{what} in {where}"
        for what, value in shared.generated().items()
        for where, text in places.items()
        if value in text
    ]
    assert not found


def operator_log(server: Server) -> str:
    """All that the operator has said so far."""
    kube = server.kube.within(release.NAMESPACE)
    return "".join(kube.kubectl("logs", pod["metadata"]["name"]) for pod in release.pods(kube))
