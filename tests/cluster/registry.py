"""The local registry: the node asks it first for every image, so that only changed layers ever move."""

import hashlib
import json
import time
import urllib.error
import urllib.request

from . import network
from .settings import CLUSTER, Settings
from .shell import Failed, Shell

NAME = f"{CLUSTER}-registry"
PORT = 5000
# Fixed and far from the others: the node must get the same address again when containers restart.
LAST_OCTET = 250
ANSWER_SECONDS = 30


def running(sh: Shell) -> bool:
    """Whether the registry's container runs and answers."""
    return sh.ok("docker", "container", "inspect", NAME) and _answers(sh)


def start(s: Settings, sh: Shell) -> None:
    """Start the registry, or make it. Its data are in a docker volume of the same name."""
    if not sh.ok("docker", "start", NAME):
        if sh.ok("docker", "container", "inspect", NAME):
            sh.run("docker", "rm", "-f", NAME)
        # On loopback docker trusts a registry without TLS, so its own settings stay as they are.
        sh.run(
            "docker", "run", "-d", "--name", NAME, "--restart", "unless-stopped",
            "--network", network.NAME, "--ip", network.address(sh, LAST_OCTET), "-p", f"127.0.0.1::{PORT}",
            "-v", f"{NAME}:/var/lib/registry", s.pins["IMAGE_REGISTRY"],
        )  # fmt: skip
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(sh):
        if time.monotonic() > deadline:
            raise Failed(
                f"the local registry does not answer after {ANSWER_SECONDS} s", f"docker logs {NAME}"
            )
        time.sleep(0.1)


def remove(sh: Shell) -> None:
    """Take the registry and its data away."""
    if sh.ok("docker", "container", "inspect", NAME):
        sh.run("docker", "rm", "-f", "-v", NAME)
    if sh.ok("docker", "volume", "inspect", NAME):
        sh.run("docker", "volume", "rm", NAME)


def repository(reference: str) -> tuple[str, str]:
    """`ghcr.io/mlflow/mlflow:v3` -> (`mlflow/mlflow`, `v3`): what a mirror is asked for."""
    path, tag = reference.rsplit(":", 1)
    return path.split("/", 1)[1], tag


def holds(sh: Shell, reference: str) -> bool:
    """Whether the registry holds exactly the image that docker has under `reference`."""
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    if not manifest:
        return False
    local = sh.out("docker", "image", "inspect", "-f", "{{.Id}}", reference)
    # Which of the two docker calls an image by depends on where it keeps images.
    return local in (json.loads(manifest).get("config", {}).get("digest"), _sha256(manifest))


def digest(sh: Shell, reference: str) -> str:
    """The digest under which the registry has `reference`; empty if it has none."""
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    return _sha256(manifest) if manifest else ""


def push(sh: Shell, reference: str) -> None:
    """Push docker's image `reference` to where the node will look for it."""
    path, tag = repository(reference)
    here = f"{_host(sh)}/{path}:{tag}"
    sh.run("docker", "tag", reference, here)
    try:
        sh.run("docker", "push", "-q", here)
    finally:
        sh.run("docker", "rmi", "--no-prune", here)


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _host(sh: Shell) -> str:
    return sh.out("docker", "port", NAME, str(PORT)).splitlines()[0]


def _answers(sh: Shell) -> bool:
    return _get(sh, "/v2/") is not None


def _get(sh: Shell, path: str) -> bytes | None:
    """The body of a GET, or None if there is none: no registry, no such image."""
    try:
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        request = urllib.request.Request(f"http://{_host(sh)}{path}", headers=accept)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, Failed):
        return None
