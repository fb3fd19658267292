"""Evidence of a failed test: the objects and logs of its namespace, and the operator's log since the test started."""

import subprocess
from pathlib import Path

from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube

COMMANDS = {
    "servers.yaml": ("get", "mlflowservers", "-o", "yaml"),
    "platforms.yaml": ("get", "mlflowplatforms", "-o", "yaml"),
    "objects.yaml": ("get", "deployments,statefulsets,services,configmaps,pvc,jobs,pods,pdb", "-o", "yaml"),
    "secrets.txt": ("describe", "secrets"),
    "pods.txt": ("get", "pods", "-o", "wide"),
    "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
}


def save(kube: Kube, folder: Path, since: str) -> None:
    """Write the output of all commands and the logs to `folder`; if a command fails, write its error instead."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in COMMANDS.items():
        (folder / name).write_text(_output(kube, *arguments))
    for pod in kube.list("Pod"):
        _save_logs(kube, pod["metadata"]["name"], folder)
    for pod in operator_release.pods(kube):
        name = pod["metadata"]["name"]
        operator = kube.in_namespace(operator_release.NAMESPACE)
        (folder / f"operator-{name}.log").write_text(_output(operator, "logs", name, f"--since-time={since}"))


def _save_logs(kube: Kube, pod: str, folder: Path) -> None:
    (folder / f"pod-{pod}.log").write_text(_output(kube, "logs", pod, "--all-containers"))
    previous = _output(kube, "logs", pod, "--all-containers", "--previous")
    if "not found" not in previous:
        (folder / f"pod-{pod}-previous.log").write_text(previous)


def _output(kube: Kube, *arguments: str) -> str:
    try:
        return kube.kubectl(*arguments)
    except (CommandError, subprocess.TimeoutExpired) as error:
        return str(error)
