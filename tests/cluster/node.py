"""The kind cluster: it is created, reused, started after a stop, and recreated if it cannot be used."""

import hashlib
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import network, registry, usage_lock
from tests.cluster.settings import CLUSTER, ROOT, Settings
from tests.cluster.shell import Shell, StepError

CONTAINER = f"{CLUSTER}-control-plane"
MARKER_FILE = "/kind/mlflow-operator"
"""File on the node with the fingerprint of its inputs. It is written last, so a node whose creation was interrupted
does not have it."""
RESUME_TIMEOUT_SECONDS = 120
SERVICES_TIMEOUT = "120s"
SERVICES = (
    ("-n", "kube-system", "deployment/coredns"),
    ("-n", "local-path-storage", "deployment/local-path-provisioner"),
)
CREATE_TIMEOUT = "150s"
MOUNTS = ROOT / "tests" / "cluster" / "mounts"
PARALLEL_PULLS = 2
"""Number of images that the node pulls in parallel."""


def is_current(s: Settings, sh: Shell) -> bool:
    """Whether the cluster is complete, was created from these files, and answers."""
    return _is_complete(s, sh) and _is_ready(s, sh)


def ensure(s: Settings, sh: Shell) -> None:
    """Start the stopped cluster, or create it."""
    if sh.succeeds("docker", "container", "inspect", CONTAINER):
        if sh.succeeds("docker", "start", CONTAINER) and _is_complete(s, sh):
            deadline = time.monotonic() + RESUME_TIMEOUT_SECONDS
            while time.monotonic() < deadline:
                if _export_kubeconfig(s, sh) and _is_ready(s, sh):
                    return
                time.sleep(0.5)
        sh.append_to_log("The existing cluster is incomplete or outdated. Recreating it.\n")
        with usage_lock.claim(s):
            delete(sh)
    _create(s, sh)


def delete(sh: Shell) -> None:
    """Delete the node and its volume in any state."""
    if sh.succeeds("docker", "container", "inspect", CONTAINER):
        sh.run("docker", "rm", "-f", "-v", CONTAINER)


def address(sh: Shell) -> str:
    """Return the node's address, for NodePorts."""
    form = f'{{{{(index .NetworkSettings.Networks "{network.NAME}").IPAddress}}}}'
    return sh.output("docker", "inspect", "-f", form, CONTAINER)


def services_are_ready(s: Settings, sh: Shell) -> bool:
    """Whether DNS and the volume provisioner are available. Both restart with the node."""
    ready = "jsonpath={.status.readyReplicas}/{.status.updatedReplicas}"
    return all(sh.try_output(*_kubectl(s), "get", *which, "-o", ready) == "1/1" for which in SERVICES)


def wait_for_services(s: Settings, sh: Shell) -> None:
    """Wait for DNS and the volume provisioner."""
    for which in SERVICES:
        sh.run(*_kubectl(s), "rollout", "status", *which, f"--timeout={SERVICES_TIMEOUT}")


def missing_images(sh: Shell, references: Iterable[str]) -> list[str]:
    """Return the images that the node does not have with the registry's digest."""
    output = sh.try_output("docker", "exec", CONTAINER, "ctr", "-n", "k8s.io", "images", "ls")
    digests = dict(line.split()[:3:2] for line in (output or "").splitlines())
    return [ref for ref in references if digests.get(ref) is None or digests[ref] != registry.digest(sh, ref)]


def pull_images(sh: Shell, references: Iterable[str]) -> None:
    """Pull images on the node before a pod waits for them."""

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

    with ThreadPoolExecutor(PARALLEL_PULLS) as pool:
        list(pool.map(pull, references))


def _create(s: Settings, sh: Shell) -> None:
    # A killed kind leaves this file behind, and then refuses to start. This project's own lock excludes other runs.
    s.kubeconfig.with_name(f"{s.kubeconfig.name}.lock").unlink(missing_ok=True)
    # Mount a copy, because the checkout may be removed before the node. kind resolves the paths in its config relative
    # to its working directory.
    folder = s.cache / "node"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MOUNTS, folder / MOUNTS.relative_to(ROOT))
    sh.run(
        "kind", "create", "cluster", "--name", CLUSTER, "--config", ROOT / "kind-config.yaml",
        "--image", s.pins["IMAGE_NODE"], "--kubeconfig", s.kubeconfig, "--wait", CREATE_TIMEOUT, "--retain",
        cwd=folder, env={"KIND_EXPERIMENTAL_DOCKER_NETWORK": network.NAME},
    )  # fmt: skip
    kubectl = (*_kubectl(s), "-n", "kube-system")
    sh.run(*kubectl, "apply", "--server-side", "--force-conflicts", "-f", MOUNTS / "coredns.yaml")
    # One node needs one replica; the tests need the resources that the second replica requests.
    sh.run(*kubectl, "scale", "deployment/coredns", "--replicas=1")
    sh.run(*kubectl, "rollout", "restart", "deployment/coredns")
    if not _is_ready(s, sh):
        raise StepError(
            "the cluster was created but is not ready",
            f"See `docker logs {CONTAINER}`, then run the command again.",
        )
    sh.run("docker", "exec", CONTAINER, "sh", "-c", f"echo {_fingerprint(s, sh)} >{MARKER_FILE}")


def _is_complete(s: Settings, sh: Shell) -> bool:
    marker = sh.try_output("docker", "exec", CONTAINER, "cat", MARKER_FILE)
    return marker is not None and marker == _fingerprint(s, sh)


def _export_kubeconfig(s: Settings, sh: Shell) -> bool:
    return sh.succeeds("kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", s.kubeconfig)


def _is_ready(s: Settings, sh: Shell) -> bool:
    status = 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'
    return sh.try_output(*_kubectl(s), "get", "nodes", "--request-timeout=5s", "-o", status) == "True"


def _kubectl(s: Settings) -> tuple[str | Path, ...]:
    return ("kubectl", "--kubeconfig", s.kubeconfig)


def _fingerprint(s: Settings, sh: Shell) -> str:
    digest = hashlib.sha256((ROOT / "kind-config.yaml").read_bytes())
    for path in sorted(path for path in MOUNTS.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    digest.update(sh.output("docker", "image", "inspect", "-f", "{{.Id}}", s.pins["IMAGE_NODE"]).encode())
    return digest.hexdigest()[:16]
