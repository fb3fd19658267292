"""The kind cluster: created, found again, started after a stop, and created again when it cannot be used."""

import hashlib
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import network, registry, usage_lock
from tests.cluster.settings import CLUSTER, ROOT, Settings
from tests.cluster.shell import Failed, Shell

CONTAINER = f"{CLUSTER}-control-plane"
MARK = "/kind/mlflow-operator"
"""A file on the node with the fingerprint of what it was created from. It is written last, so a node whose creation was
interrupted has none."""
RESUME_SECONDS = 120
SETTLE = "120s"
SERVICES = (
    ("-n", "kube-system", "deployment/coredns"),
    ("-n", "local-path-storage", "deployment/local-path-provisioner"),
)
CREATE_WAIT = "150s"
MOUNTS = ROOT / "tests" / "cluster" / "mounts"
PULLS = 2
"""Images that the node pulls at a time."""


def is_current(s: Settings, sh: Shell) -> bool:
    """Whether the cluster is complete, was created from these files, and answers."""
    return _complete(s, sh) and _ready(s, sh)


def ensure(s: Settings, sh: Shell) -> None:
    """Start the stopped cluster, or create it."""
    if sh.ok("docker", "container", "inspect", CONTAINER):
        if sh.ok("docker", "start", CONTAINER) and _complete(s, sh):
            deadline = time.monotonic() + RESUME_SECONDS
            while time.monotonic() < deadline:
                if _export(s, sh) and _ready(s, sh):
                    return
                time.sleep(0.5)
        sh.note("The existing cluster is incomplete or outdated. Creating it again.\n")
        with usage_lock.claim(s):
            delete(sh)
    _create(s, sh)


def delete(sh: Shell) -> None:
    """Remove the node and its volume, in whatever state they are."""
    if sh.ok("docker", "container", "inspect", CONTAINER):
        sh.run("docker", "rm", "-f", "-v", CONTAINER)


def address(sh: Shell) -> str:
    """The address at which NodePorts answer."""
    form = f'{{{{(index .NetworkSettings.Networks "{network.NAME}").IPAddress}}}}'
    return sh.out("docker", "inspect", "-f", form, CONTAINER)


def serves(s: Settings, sh: Shell) -> bool:
    """Whether DNS and the volume provisioner are available. Both restart when the node does."""
    ready = "jsonpath={.status.readyReplicas}/{.status.updatedReplicas}"
    return all(sh.ask(*_kubectl(s), "get", *which, "-o", ready) == "1/1" for which in SERVICES)


def settle(s: Settings, sh: Shell) -> None:
    """Wait for both."""
    for which in SERVICES:
        sh.run(*_kubectl(s), "rollout", "status", *which, f"--timeout={SETTLE}")


def missing_images(sh: Shell, references: Iterable[str]) -> list[str]:
    """Those that the node does not hold in the version that the registry has."""
    listed = sh.ask("docker", "exec", CONTAINER, "ctr", "-n", "k8s.io", "images", "ls")
    held = dict(line.split()[:3:2] for line in (listed or "").splitlines())
    return [ref for ref in references if held.get(ref) is None or held[ref] != registry.digest(sh, ref)]


def pull_images(sh: Shell, references: Iterable[str]) -> None:
    """Have the node pull images before a pod waits for them."""

    def pull(reference: str) -> None:
        command = (
            "ctr",
            "-n",
            "k8s.io",
            "images",
            "pull",
            "--hosts-dir",
            "/etc/containerd/certs.d",
            reference,
        )
        sh.run("docker", "exec", CONTAINER, *command)

    with ThreadPoolExecutor(PULLS) as pool:
        list(pool.map(pull, references))


def _create(s: Settings, sh: Shell) -> None:
    # kind leaves it behind if it is killed, and then refuses to start. Our own lock keeps other runs away.
    s.kubeconfig.with_name(f"{s.kubeconfig.name}.lock").unlink(missing_ok=True)
    # The node keeps its mounts for life and a checkout can be removed before it, so a copy is mounted. kind resolves
    # the paths in its config relative to its working directory.
    folder = s.cache / "node"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MOUNTS, folder / MOUNTS.relative_to(ROOT))
    sh.run(
        "kind", "create", "cluster", "--name", CLUSTER, "--config", ROOT / "kind-config.yaml",
        "--image", s.pins["IMAGE_NODE"], "--kubeconfig", s.kubeconfig, "--wait", CREATE_WAIT, "--retain",
        cwd=folder, env={"KIND_EXPERIMENTAL_DOCKER_NETWORK": network.NAME},
    )  # fmt: skip
    kubectl = (*_kubectl(s), "-n", "kube-system")
    sh.run(*kubectl, "apply", "--server-side", "--force-conflicts", "-f", MOUNTS / "coredns.yaml")
    # One node needs one replica; the tests need what the second one requests.
    sh.run(*kubectl, "scale", "deployment/coredns", "--replicas=1")
    sh.run(*kubectl, "rollout", "restart", "deployment/coredns")
    if not _ready(s, sh):
        raise Failed(
            "the cluster was created and is not ready",
            f"docker logs {CONTAINER}; then run the command again.",
        )
    sh.run("docker", "exec", CONTAINER, "sh", "-c", f"echo {_fingerprint(s, sh)} >{MARK}")


def _complete(s: Settings, sh: Shell) -> bool:
    mark = sh.ask("docker", "exec", CONTAINER, "cat", MARK)
    return mark is not None and mark == _fingerprint(s, sh)


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
