"""The kind cluster: made, found again, taken up after a stop, made anew when it is beyond that."""

import hashlib
import shutil
import time
from pathlib import Path

from . import network, registry
from .settings import CLUSTER, ROOT, Settings
from .shell import Failed, Shell

CONTAINER = f"{CLUSTER}-control-plane"
# Inside the node, so that it goes with it: a creation that was killed leaves none.
MARK = "/kind/mlflow-operator"
RESUME_SECONDS = 120
SETTLE = "120s"
SERVICES = (
    ("-n", "kube-system", "deployment/coredns"),
    ("-n", "local-path-storage", "deployment/local-path-provisioner"),
)
CREATE_WAIT = "150s"
MOUNTS = ROOT / "tests" / "cluster" / "mounts"


def there(s: Settings, sh: Shell) -> bool:
    """Whether the cluster is whole, is the one that is wanted, and answers."""
    return _whole(s, sh) and _ready(s, sh)


def make(s: Settings, sh: Shell) -> None:
    """Take the cluster up where it stopped, or make it anew."""
    if sh.ok("docker", "container", "inspect", CONTAINER):
        if sh.ok("docker", "start", CONTAINER) and _whole(s, sh):
            deadline = time.monotonic() + RESUME_SECONDS
            while time.monotonic() < deadline:
                if _export(s, sh) and _ready(s, sh):
                    return
                time.sleep(0.5)
        print("(beyond repair or out of date: made anew)", end=" ", flush=True)
        delete(sh)
    _create(s, sh)


def delete(sh: Shell) -> None:
    """Take the node and its volume away, in whatever state they are."""
    if sh.ok("docker", "container", "inspect", CONTAINER):
        sh.run("docker", "rm", "-f", "-v", CONTAINER)


def address(sh: Shell) -> str:
    """Where NodePorts answer."""
    form = f'{{{{(index .NetworkSettings.Networks "{network.NAME}").IPAddress}}}}'
    return sh.out("docker", "inspect", "-f", form, CONTAINER)


def serves(s: Settings, sh: Shell) -> bool:
    """Whether names resolve and volumes are made: both restart for a while when the node has."""
    ready = "jsonpath={.status.readyReplicas}/{.status.updatedReplicas}"
    return all(sh.ask(*_kubectl(s), "get", *which, "-o", ready) == "1/1" for which in SERVICES)


def settle(s: Settings, sh: Shell) -> None:
    """Wait for both."""
    for which in SERVICES:
        sh.run(*_kubectl(s), "rollout", "status", *which, f"--timeout={SETTLE}")


def missing_images(sh: Shell, references: list[str]) -> list[str]:
    """Those that the node does not hold as the registry has them now."""
    held = dict(
        line.split()[:3:2]
        for line in sh.out("docker", "exec", CONTAINER, "ctr", "-n", "k8s.io", "images", "ls").splitlines()
    )
    return [ref for ref in references if held.get(ref) is None or held[ref] != registry.digest(sh, ref)]


def pull_images(sh: Shell, references: list[str]) -> None:
    """Have the node pull now what a pod would otherwise wait for."""
    for reference in references:
        pull = ("ctr", "-n", "k8s.io", "images", "pull", "--hosts-dir", "/etc/containerd/certs.d", reference)
        sh.run("docker", "exec", CONTAINER, *pull)


def _create(s: Settings, sh: Shell) -> None:
    # The node keeps what is mounted for life, and a checkout may go before it. kind takes the paths in its config from
    # where it stands.
    stand = s.cache / "node"
    shutil.rmtree(stand, ignore_errors=True)
    shutil.copytree(MOUNTS, stand / MOUNTS.relative_to(ROOT))
    sh.run(
        "kind", "create", "cluster", "--name", CLUSTER, "--config", ROOT / "kind-config.yaml",
        "--image", s.pins["IMAGE_NODE"], "--kubeconfig", s.kubeconfig, "--wait", CREATE_WAIT, "--retain",
        cwd=stand, env={"KIND_EXPERIMENTAL_DOCKER_NETWORK": network.NAME},
    )  # fmt: skip
    kubectl = (*_kubectl(s), "-n", "kube-system")
    sh.run(*kubectl, "apply", "--server-side", "--force-conflicts", "-f", MOUNTS / "coredns.yaml")
    # One node needs one, and its requests are better spent on what is tested.
    sh.run(*kubectl, "scale", "deployment/coredns", "--replicas=1")
    sh.run(*kubectl, "rollout", "restart", "deployment/coredns")
    if not _ready(s, sh):
        raise Failed("the cluster was made and is not ready", f"docker logs {CONTAINER}; then run it again.")
    sh.run("docker", "exec", CONTAINER, "sh", "-c", f"echo {_fingerprint(s, sh)} >{MARK}")


def _whole(s: Settings, sh: Shell) -> bool:
    return sh.ask("docker", "exec", CONTAINER, "cat", MARK) == _fingerprint(s, sh)


def _export(s: Settings, sh: Shell) -> bool:
    return sh.ok("kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", s.kubeconfig)


def _ready(s: Settings, sh: Shell) -> bool:
    status = 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'
    return sh.ask(*_kubectl(s), "get", "nodes", "--request-timeout=5s", "-o", status) == "True"


def _kubectl(s: Settings) -> tuple[str | Path, ...]:
    return ("kubectl", "--kubeconfig", s.kubeconfig)


def _fingerprint(s: Settings, sh: Shell) -> str:
    seen = hashlib.sha256((ROOT / "kind-config.yaml").read_bytes())
    for path in sorted(path for path in MOUNTS.rglob("*") if path.is_file()):
        seen.update(path.read_bytes())
    seen.update(sh.out("docker", "image", "inspect", "-f", "{{.Id}}", s.pins["IMAGE_NODE"]).encode())
    return seen.hexdigest()[:16]
