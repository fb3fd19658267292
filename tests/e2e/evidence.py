"""What is left of a test that failed: everything in its namespace, and what the operator said meanwhile."""

import subprocess
from pathlib import Path

from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube

LOOKS = {
    "servers.yaml": ("get", "mlflowservers", "-o", "yaml"),
    "objects.yaml": ("get", "deployments,statefulsets,services,configmaps,pvc,jobs,pods,pdb", "-o", "yaml"),
    "secrets.txt": ("describe", "secrets"),
    "pods.txt": ("get", "pods", "-o", "wide"),
    "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
}


def keep(kube: Kube, folder: Path, since: str) -> None:
    """Writes it all to `folder`; a look that fails leaves its error there instead."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, look in LOOKS.items():
        (folder / name).write_text(_said(kube, *look))
    for pod in kube.list("Pod"):
        _logs(kube, pod["metadata"]["name"], folder)
    for pod in operator_release.pods(kube):
        name = pod["metadata"]["name"]
        operator = kube.within(operator_release.NAMESPACE)
        (folder / f"operator-{name}.log").write_text(_said(operator, "logs", name, f"--since-time={since}"))


def _logs(kube: Kube, pod: str, folder: Path) -> None:
    (folder / f"pod-{pod}.log").write_text(_said(kube, "logs", pod, "--all-containers"))
    previous = _said(kube, "logs", pod, "--all-containers", "--previous")
    if "not found" not in previous:
        (folder / f"pod-{pod}-previous.log").write_text(previous)


def _said(kube: Kube, *look: str) -> str:
    try:
        return kube.kubectl(*look)
    except (CommandError, subprocess.TimeoutExpired) as error:
        return str(error)
