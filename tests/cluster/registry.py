"""The local registry, which the node asks for every image under its real reference.

Its data are in the cache, so images survive `make clean`. Layers are stored without compression: they never cross a
network, and compressing and decompressing them took longer than anything else that is done to an image.
"""

import hashlib
import json
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

from tests.cluster import network
from tests.cluster.settings import CLUSTER, Settings
from tests.cluster.shell import Failed, Shell

NAME = f"{CLUSTER}-registry"
PORT = 5000
LAST_OCTET = 250
"""Fixed, and far from the addresses of other containers: the node must find the registry there after a restart."""
ANSWER_SECONDS = 30
REQUEST_SECONDS = 5
BLOCK = 1 << 20
"""Bytes that are read from an image and sent at a time. Python's default is 16 KiB."""
UPLOAD_SECONDS = 300
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
NO_ANSWER = "the local registry does not answer"


def running(sh: Shell) -> bool:
    """Whether the registry's container runs and answers."""
    return sh.ok("docker", "container", "inspect", NAME) and _answers(sh)


def start(s: Settings, sh: Shell) -> None:
    """Start the registry, or create it."""
    if not sh.ok("docker", "start", NAME):
        if sh.ok("docker", "container", "inspect", NAME):
            sh.run("docker", "rm", "-f", NAME)
        data(s).mkdir(parents=True, exist_ok=True)
        # docker trusts a registry without TLS on loopback, so the engine's own settings stay as they are.
        sh.run(
            "docker", "run", "-d", "--name", NAME, "--restart", "unless-stopped",
            "--network", network.NAME, "--ip", network.address(sh, LAST_OCTET), "-p", f"127.0.0.1::{PORT}",
            "-v", f"{data(s)}:/var/lib/registry", s.pins["IMAGE_REGISTRY"],
        )  # fmt: skip
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(sh):
        if time.monotonic() > deadline:
            raise Failed(f"{NO_ANSWER} after {ANSWER_SECONDS} s", f"docker logs {NAME}")
        time.sleep(0.1)


def remove(s: Settings, sh: Shell) -> None:
    """Remove the container. Images stay in the cache, except older builds of the operator's image."""
    if running(sh):
        tags = _tags(s, s.pins["IMAGE_OPERATOR"])
        builds = sorted(tags.glob("*-dev.*"), key=lambda tag: tag.stat().st_mtime)
        for build in builds[:-1]:
            shutil.rmtree(build, ignore_errors=True)
        collect = ("garbage-collect", "--delete-untagged", "/etc/docker/registry/config.yml")
        sh.ok("docker", "exec", NAME, "docker-registry", *collect, timeout=120)
    if sh.ok("docker", "container", "inspect", NAME):
        sh.run("docker", "rm", "-f", "-v", NAME)


def data(s: Settings) -> Path:
    """The folder with the registry's data."""
    return s.cache / "registry"


def repository(reference: str) -> tuple[str, str]:
    """`ghcr.io/mlflow/mlflow:v3` -> (`mlflow/mlflow`, `v3`): what containerd asks a mirror for."""
    path, tag = reference.rsplit(":", 1)
    return path.split("/", 1)[1], tag


def labels(sh: Shell, reference: str) -> Mapping[str, str] | None:
    """The labels of the image that the registry holds under `reference`; None if it holds none."""
    config = _config(sh, reference)
    if config is None:
        return None
    path, _ = repository(reference)
    blob = _get(sh, f"/v2/{path}/blobs/{config}")
    if blob is None:
        return None
    found: Mapping[str, str] | None = json.loads(blob)["config"].get("Labels")
    return found or {}


def holds(sh: Shell, reference: str) -> bool:
    """Whether the registry holds exactly the image that docker has under `reference`."""
    identity = sh.ask("docker", "image", "inspect", "-f", "{{.Id}}", reference)
    return identity is not None and _config(sh, reference) == identity


def digest(sh: Shell, reference: str) -> str:
    """The digest under which the registry holds `reference`; empty if it holds none."""
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    return _sha256(manifest) if manifest else ""


def push(s: Settings, sh: Shell, reference: str, *more: str) -> None:
    """Copy docker's image `reference` into the registry, under that reference and under `more`.

    `docker push` compresses each layer. This writes layers as they are, under the digests that the image's own
    configuration lists, and skips those that the registry has already.
    """
    try:
        connection = HTTPConnection(_host(sh), timeout=UPLOAD_SECONDS, blocksize=BLOCK)
        # A name of its own, so that the next try removes what an interrupted one has left.
        saved = s.cache / "build" / f"{hashlib.sha256(reference.encode()).hexdigest()[:12]}.tar"
        saved.parent.mkdir(exist_ok=True)
        try:
            sh.run("docker", "save", "-o", saved, reference)
            with tarfile.open(saved) as archive:
                for name in (reference, *more):
                    _upload(connection, archive, name, repository(reference)[0])
        finally:
            saved.unlink(missing_ok=True)
    except OSError as error:
        raise Failed(f"{NO_ANSWER}: {error}", f"docker logs {NAME}") from error


def pull(sh: Shell, reference: str) -> None:
    """Have docker hold the registry's image `reference`."""
    path, tag = repository(reference)
    local = f"{_host(sh)}/{path}:{tag}"
    sh.run("docker", "pull", "-q", local)
    sh.run("docker", "tag", local, reference)
    sh.run("docker", "rmi", "--no-prune", local)


def _upload(connection: HTTPConnection, archive: tarfile.TarFile, reference: str, source: str) -> None:
    """Write one manifest and what it lists. Layers that the repository `source` has are not sent again."""
    path, tag = repository(reference)
    (listed,) = json.load(_member(archive, "manifest.json"))
    config = _member(archive, listed["Config"]).read()
    digests = json.loads(config)["rootfs"]["diff_ids"]
    layers = []
    for name, layer in zip(listed["Layers"], digests, strict=True):
        size = archive.getmember(name).size
        if not _mounted(connection, path, layer, source):
            _blob(connection, path, layer, _member(archive, name), size)
        layers.append({"mediaType": LAYER, "size": size, "digest": layer})
    _blob(connection, path, _sha256(config), config, len(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": _sha256(config)},
        "layers": layers,
    }
    body = json.dumps(manifest).encode()
    _ask(connection, "PUT", f"/v2/{path}/manifests/{tag}", body, {"Content-Type": MANIFEST}, expect=201)


def _mounted(connection: HTTPConnection, path: str, digest: str, source: str) -> bool:
    """Whether the repository has the blob, if need be by a link to that of another repository."""
    if _ask(connection, "HEAD", f"/v2/{path}/blobs/{digest}").status == 200:
        return True
    if path == source:
        return False
    linked = _ask(connection, "POST", f"/v2/{path}/blobs/uploads/?mount={digest}&from={source}")
    return bool(linked.status == 201)


def _blob(connection: HTTPConnection, path: str, digest: str, body: IO[bytes] | bytes, size: int) -> None:
    location = _ask(connection, "POST", f"/v2/{path}/blobs/uploads/", expect=202).headers["Location"]
    target = location.split("/", 3)[3] if "://" in location else location.lstrip("/")
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    separator = "&" if "?" in target else "?"
    _ask(connection, "PUT", f"/{target}{separator}digest={digest}", body, headers, expect=201)


def _ask(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    expect: int | None = None,
) -> Any:
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    text = answer.read()
    if expect is not None and answer.status != expect:
        raise Failed(f"the local registry answers {answer.status} to {method} {path}: {text[:300]!r}")
    return answer


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise Failed(f"`docker save` wrote no {name}")
    return found


def _tags(s: Settings, repository_name: str) -> Path:
    path = repository_name.split("/", 1)[1]
    return data(s) / "docker" / "registry" / "v2" / "repositories" / path / "_manifests" / "tags"


def _config(sh: Shell, reference: str) -> str | None:
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    return str(json.loads(manifest)["config"]["digest"]) if manifest else None


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _host(sh: Shell) -> str:
    ports = sh.ask("docker", "port", NAME, str(PORT))
    if not ports:
        raise Failed(NO_ANSWER, f"docker logs {NAME}")
    return ports.splitlines()[0]


def _answers(sh: Shell) -> bool:
    return _get(sh, "/v2/") is not None


def _get(sh: Shell, path: str) -> bytes | None:
    """The body of a GET, or None: no registry, or no such image."""
    try:
        request = urllib.request.Request(f"http://{_host(sh)}{path}", headers={"Accept": MANIFEST})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=REQUEST_SECONDS) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, Failed):
        return None
