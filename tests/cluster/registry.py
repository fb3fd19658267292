"""The local registry, from which the node pulls every image under its real reference.

Its data are in the cache, so images survive `make clean`. Layers are stored without compression: they never cross a
network, and compression and decompression took longer than all other work on an image.
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
from tests.cluster.shell import Shell, StepError

NAME = f"{CLUSTER}-registry"
PORT = 5000
LAST_OCTET = 250
"""Last octet of the registry's address. It is fixed, because the node must find the registry after a restart, and far
from the addresses of other containers."""
START_TIMEOUT_SECONDS = 30
REQUEST_TIMEOUT_SECONDS = 5
BLOCK_BYTES = 1 << 20
"""Block size for uploads. Python's default is 16 KiB."""
UPLOAD_TIMEOUT_SECONDS = 300
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
NO_ANSWER = "the local registry does not answer"


def is_running(sh: Shell) -> bool:
    """Whether the registry's container runs and answers."""
    return sh.succeeds("docker", "container", "inspect", NAME) and _is_available(sh)


def start(s: Settings, sh: Shell) -> None:
    """Start the registry, or create it."""
    if not sh.succeeds("docker", "start", NAME):
        if sh.succeeds("docker", "container", "inspect", NAME):
            sh.run("docker", "rm", "-f", NAME)
        data(s).mkdir(parents=True, exist_ok=True)
        # docker accepts a registry without TLS on loopback, so the engine's settings need not change.
        sh.run(
            "docker", "run", "-d", "--name", NAME, "--restart", "unless-stopped",
            "--network", network.NAME, "--ip", network.address(sh, LAST_OCTET), "-p", f"127.0.0.1::{PORT}",
            "-v", f"{data(s)}:/var/lib/registry", s.pins["IMAGE_REGISTRY"],
        )  # fmt: skip
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _is_available(sh):
        if time.monotonic() > deadline:
            raise StepError(f"{NO_ANSWER} after {START_TIMEOUT_SECONDS} s", f"docker logs {NAME}")
        time.sleep(0.1)


def remove(s: Settings, sh: Shell) -> None:
    """Remove the container. Images stay in the cache, except older builds of the operator's image."""
    if is_running(sh):
        tags = _tags_folder(s, s.pins["IMAGE_OPERATOR"])
        builds = sorted(tags.glob("*-dev.*"), key=lambda tag: tag.stat().st_mtime)
        for build in builds[:-1]:
            shutil.rmtree(build, ignore_errors=True)
        collect = ("garbage-collect", "--delete-untagged", "/etc/docker/registry/config.yml")
        sh.succeeds("docker", "exec", NAME, "docker-registry", *collect, timeout=120)
    if sh.succeeds("docker", "container", "inspect", NAME):
        sh.run("docker", "rm", "-f", "-v", NAME)


def data(s: Settings) -> Path:
    """Return the folder with the registry's data."""
    return s.cache / "registry"


def repository(reference: str) -> tuple[str, str]:
    """Split `ghcr.io/mlflow/mlflow:v3` into (`mlflow/mlflow`, `v3`), which containerd requests from a mirror."""
    path, tag = reference.rsplit(":", 1)
    return path.split("/", 1)[1], tag


def labels(sh: Shell, reference: str) -> Mapping[str, str] | None:
    """Return the labels of an image in the registry, or None if the registry does not have it."""
    config = _config_digest(sh, reference)
    if config is None:
        return None
    path, _ = repository(reference)
    blob = _get(sh, f"/v2/{path}/blobs/{config}")
    if blob is None:
        return None
    image_labels: Mapping[str, str] | None = json.loads(blob)["config"].get("Labels")
    return image_labels or {}


def has_docker_image(sh: Shell, reference: str) -> bool:
    """Whether the registry has the same image under `reference` as docker."""
    identity = sh.try_output("docker", "image", "inspect", "-f", "{{.Id}}", reference)
    return identity is not None and _config_digest(sh, reference) == identity


def digest(sh: Shell, reference: str) -> str:
    """Return the digest of an image in the registry, or an empty string if the registry does not have it."""
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    return _sha256(manifest) if manifest else ""


def push(s: Settings, sh: Shell, reference: str, *more_references: str) -> None:
    """Copy docker's image into the registry, under its reference and under `more_references`.

    `docker push` compresses each layer. This function uploads uncompressed layers under the digests in the image's
    configuration, and skips those that the registry already has.
    """
    try:
        connection = HTTPConnection(_host(sh), timeout=UPLOAD_TIMEOUT_SECONDS, blocksize=BLOCK_BYTES)
        # The name depends on the reference, so that the next run removes the file of an interrupted run.
        saved = s.cache / "build" / f"{hashlib.sha256(reference.encode()).hexdigest()[:12]}.tar"
        saved.parent.mkdir(exist_ok=True)
        try:
            sh.run("docker", "save", "-o", saved, reference)
            with tarfile.open(saved) as archive:
                for name in (reference, *more_references):
                    _upload(connection, archive, name, repository(reference)[0])
        finally:
            saved.unlink(missing_ok=True)
    except OSError as error:
        raise StepError(f"{NO_ANSWER}: {error}", f"docker logs {NAME}") from error


def pull(sh: Shell, reference: str) -> None:
    """Pull an image from the registry into docker."""
    path, tag = repository(reference)
    local = f"{_host(sh)}/{path}:{tag}"
    sh.run("docker", "pull", "-q", local)
    sh.run("docker", "tag", local, reference)
    sh.run("docker", "rmi", "--no-prune", local)


def _upload(connection: HTTPConnection, archive: tarfile.TarFile, reference: str, source: str) -> None:
    """Upload one manifest and its blobs. Layers that the repository `source` has are not uploaded again."""
    path, tag = repository(reference)
    (entry,) = json.load(_open_member(archive, "manifest.json"))
    config = _open_member(archive, entry["Config"]).read()
    digests = json.loads(config)["rootfs"]["diff_ids"]
    layers = []
    for name, layer in zip(entry["Layers"], digests, strict=True):
        size = archive.getmember(name).size
        if not _has_blob(connection, path, layer, source):
            _upload_blob(connection, path, layer, _open_member(archive, name), size)
        layers.append({"mediaType": LAYER, "size": size, "digest": layer})
    _upload_blob(connection, path, _sha256(config), config, len(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": _sha256(config)},
        "layers": layers,
    }
    body = json.dumps(manifest).encode()
    _request(connection, "PUT", f"/v2/{path}/manifests/{tag}", body, {"Content-Type": MANIFEST}, expect=201)


def _has_blob(connection: HTTPConnection, path: str, digest: str, source: str) -> bool:
    """Whether the repository has the blob. If not, tries to mount it from the repository `source`."""
    if _request(connection, "HEAD", f"/v2/{path}/blobs/{digest}").status == 200:
        return True
    if path == source:
        return False
    linked = _request(connection, "POST", f"/v2/{path}/blobs/uploads/?mount={digest}&from={source}")
    return bool(linked.status == 201)


def _upload_blob(
    connection: HTTPConnection, path: str, digest: str, body: IO[bytes] | bytes, size: int
) -> None:
    location = _request(connection, "POST", f"/v2/{path}/blobs/uploads/", expect=202).headers["Location"]
    target = location.split("/", 3)[3] if "://" in location else location.lstrip("/")
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    separator = "&" if "?" in target else "?"
    _request(connection, "PUT", f"/{target}{separator}digest={digest}", body, headers, expect=201)


def _request(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    expect: int | None = None,
) -> Any:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    text = response.read()
    if expect is not None and response.status != expect:
        raise StepError(f"the local registry answers {response.status} to {method} {path}: {text[:300]!r}")
    return response


def _open_member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.extractfile(name)
    if member is None:
        raise StepError(f"`docker save` wrote no {name}")
    return member


def _tags_folder(s: Settings, repository_name: str) -> Path:
    path = repository_name.split("/", 1)[1]
    return data(s) / "docker" / "registry" / "v2" / "repositories" / path / "_manifests" / "tags"


def _config_digest(sh: Shell, reference: str) -> str | None:
    path, tag = repository(reference)
    manifest = _get(sh, f"/v2/{path}/manifests/{tag}")
    return str(json.loads(manifest)["config"]["digest"]) if manifest else None


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _host(sh: Shell) -> str:
    ports = sh.try_output("docker", "port", NAME, str(PORT))
    if not ports:
        raise StepError(NO_ANSWER, f"docker logs {NAME}")
    return ports.splitlines()[0]


def _is_available(sh: Shell) -> bool:
    return _get(sh, "/v2/") is not None


def _get(sh: Shell, path: str) -> bytes | None:
    """Return the body of a GET, or None if the registry does not answer or does not have the image."""
    try:
        request = urllib.request.Request(f"http://{_host(sh)}{path}", headers={"Accept": MANIFEST})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:
            body: bytes = response.read()
            return body
    except (OSError, StepError):
        return None
