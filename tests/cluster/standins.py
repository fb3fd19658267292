"""Images built here under the published references, from Debian packages, Go modules and PyPI."""

import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import debian, programs
from .debian import LABEL
from .settings import Settings
from .shell import Shell

FOLDERS = Path(__file__).parent / "images"


@dataclass(frozen=True)
class StandIn:
    """An image: its Dockerfile's folder, or lines for one static program, and what goes in beside it."""

    reference: str
    folder: str = ""
    lines: tuple[str, ...] = ()
    # Path inside the build context -> program on the host.
    files: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    base: str = ""

    def dockerfile(self) -> str:
        """The Dockerfile's text."""
        if self.folder:
            return (FOLDERS / self.folder / "Dockerfile").read_text()
        return "\n".join(("FROM scratch", "COPY root /", *self.lines, ""))


def all_images(s: Settings, sh: Shell) -> Iterator[StandIn]:
    """Every stand-in, each after the one it stands on. The programs inside must have been built."""
    modules = programs.contents(s.pins)
    trixie = debian.reference(s.pins["DEBIAN"])
    yield StandIn(s.pins["IMAGE_REGISTRY"], "registry", base=trixie)
    yield StandIn(s.pins["IMAGE_BUSYBOX"], "busybox", base=trixie)
    yield StandIn(s.pins["IMAGE_POSTGRES"], "postgres", base=trixie)
    yield StandIn(s.pins["IMAGE_PYTHON"], "python", base=trixie)
    yield StandIn(s.pins["IMAGE_MLFLOW"], "mlflow", base=s.pins["IMAGE_PYTHON"])
    minio = {"minio": modules["MinIO"].program(s, "minio")}
    yield StandIn(s.pins["IMAGE_MINIO"], "minio", files=minio, base=trixie)
    yield StandIn(s.pins["IMAGE_SEAWEEDFS"], "seaweedfs", base=trixie)
    lines = ("EXPOSE 8474", 'ENTRYPOINT ["/toxiproxy"]', 'CMD ["-host=0.0.0.0"]')
    yield _single(s.pins["IMAGE_TOXIPROXY"], "toxiproxy", modules["Toxiproxy"].program(s, "server"), *lines)
    yield _node(s, sh)
    yield from control_plane(s, sh)


def control_plane(s: Settings, sh: Shell) -> Iterator[StandIn]:
    """What runs on the node to make it a cluster: kubeadm's own list, and the volume provisioner."""
    modules = programs.contents(s.pins)
    for reference in _kubeadm_images(s, sh):
        name: str = reference.rsplit("/", 1)[1].split(":")[0]
        match name:
            case "kube-proxy":
                files: dict[str, Path] = {name: modules["Kubernetes"].program(s, name)}
                yield StandIn(reference, name, files=files, base=debian.reference(s.pins["DEBIAN_NODE"]))
            case "pause":
                pause = modules["pause"].program(s, name)
                yield _single(reference, "pause", pause, 'ENTRYPOINT ["/pause"]', "USER 65535:65535")
            case "coredns":
                yield _single(
                    reference, "coredns", modules["CoreDNS"].program(s, name), 'ENTRYPOINT ["/coredns"]'
                )
            case "etcd":
                yield _single(reference, "usr/local/bin/etcd", modules["etcd"].program(s, name))
            case _:
                yield _single(reference, f"usr/local/bin/{name}", modules["Kubernetes"].program(s, name))
    name = "local-path-provisioner"
    yield _single(_volumes(s), f"usr/bin/{name}", modules[name].program(s, name))


def own(s: Settings, sh: Shell) -> Iterator[StandIn]:
    """Images that stand in for nobody's, for tests alone: built here in any case, on what was built or pulled."""
    yield _client(s, sh)
    yield StandIn(s.pins["IMAGE_PGBOUNCER"], "pgbouncer", base=s.pins["IMAGE_PYTHON"])


def earlier(s: Settings) -> Iterator[StandIn]:
    """MLflow as it was: servers to upgrade from. Built or pulled when a test asks for them."""
    for name in ("IMAGE_MLFLOW_2_22", "IMAGE_MLFLOW_3_14", "IMAGE_MLFLOW_3_16"):
        reference = s.pins[name]
        version = reference.rpartition(":v")[2].removesuffix("-full")
        yield StandIn(
            reference, "mlflow-earlier", arguments={"VERSION": version}, base=s.pins["IMAGE_PYTHON"]
        )


def _client(s: Settings, sh: Shell) -> StandIn:
    """A data scientist's image, for pods that train: MLflow's, and what the programs in tests/workflows use beside it.

    Teams make such images themselves.
    """
    project = tomllib.loads((s.root / "pyproject.toml").read_text())
    wanted = {str(line) for line in project["dependency-groups"]["workflows"]}
    export = ("--frozen", "--only-group", "workflows", "--no-hashes", "--no-annotate", "--no-header", "-q")
    locked = sh.out("uv", "export", *export, "--project", s.root).splitlines()
    # what they need in turn is in MLflow's image, at the versions that MLflow was built with
    packages = "\n".join(line for line in locked if line.split("==")[0] in wanted)
    return StandIn(
        s.pins["IMAGE_CLIENT"], "client", arguments={"PACKAGES": packages}, base=s.pins["IMAGE_MLFLOW"]
    )


def _node(s: Settings, sh: Shell) -> StandIn:
    kubernetes = programs.contents(s.pins)["Kubernetes"]
    pause = next(image for image in _kubeadm_images(s, sh) if "/pause:" in image)
    return StandIn(
        s.pins["IMAGE_NODE"],
        "node",
        files={name: kubernetes.program(s, name) for name in ("kubelet", "kubeadm", "kubectl")},
        arguments={"IMAGE_PAUSE": pause, "IMAGE_LOCAL_PATH": _volumes(s)},
        base=debian.reference(s.pins["DEBIAN_NODE"]),
    )


def _kubeadm_images(s: Settings, sh: Shell) -> list[str]:
    kubeadm = programs.contents(s.pins)["Kubernetes"].program(s, "kubeadm")
    version = ("--kubernetes-version", f"v{s.pins['KUBERNETES']}")
    return sh.out(kubeadm, "config", "images", "list", *version).splitlines()


def _volumes(s: Settings) -> str:
    return f"docker.io/rancher/local-path-provisioner:v{s.pins['LOCAL_PATH_PROVISIONER']}"


def there(s: Settings, sh: Shell, image: StandIn) -> bool:
    """Whether docker holds the image, built from exactly this, or the published one where that will do."""
    label = _label(sh, image.reference)
    return label == _fingerprint(s, sh, image) or (label == "" and s.images != "build")


def build(s: Settings, sh: Shell, image: StandIn) -> None:
    """Build the image and give it its published reference."""
    context = s.cache / "build" / hashlib.sha256(image.reference.encode()).hexdigest()[:12]
    shutil.rmtree(context, ignore_errors=True)
    if image.folder:
        shutil.copytree(FOLDERS / image.folder, context)
    for inside, program in image.files.items():
        target = context / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(program, target)
    (context / "Dockerfile").write_text(image.dockerfile())
    before = _identity(sh, image.reference)
    arguments = [part for k, v in _arguments(s, image).items() for part in ("--build-arg", f"{k}={v}")]
    label = f"{LABEL}={_fingerprint(s, sh, image)}"
    # The package registries are reached as the machine reaches them.
    network = ("--network", "host")
    sh.run("docker", "build", "-q", *network, *arguments, "--label", label, "-t", image.reference, context)
    shutil.rmtree(context)
    if before not in ("", _identity(sh, image.reference)):
        sh.ok("docker", "rmi", before, timeout=120)


def is_stand_in(sh: Shell, reference: str) -> bool:
    """Whether docker holds an image of that name that was built here."""
    return bool(_label(sh, reference))


def is_published(sh: Shell, reference: str) -> bool:
    """Whether docker holds an image of that name that was not built here."""
    return _label(sh, reference) == ""


def remove_all(s: Settings, sh: Shell) -> None:
    """Remove what was built here, and no image that someone else built on top of it."""
    ours = {
        _familiar(reference.split(":")[0]) for name, reference in s.pins.items() if name.startswith("IMAGE_")
    }
    ours |= {_familiar(_volumes(s).split(":")[0]), "debian", "<none>"}
    form = "{{.Repository}} {{.Tag}} {{.ID}}"
    listed = sh.out("docker", "images", "--filter", f"label={LABEL}", "--format", form).splitlines()
    for repository, tag, identity in (line.split() for line in listed):
        if repository in ours or repository.startswith("registry.k8s.io/"):
            sh.ok("docker", "rmi", identity if tag == "<none>" else f"{repository}:{tag}", timeout=120)


def _familiar(repository: str) -> str:
    """How docker lists a repository of Docker Hub."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def _identity(sh: Shell, reference: str) -> str:
    return sh.ask("docker", "image", "inspect", "-f", "{{.Id}}", reference) or ""


def _single(reference: str, inside: str, program: Path, *lines: str) -> StandIn:
    path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    return StandIn(reference, lines=(path, *lines), files={f"root/{inside}": program})


def _label(sh: Shell, reference: str) -> str | None:
    return sh.ask("docker", "image", "inspect", "-f", f'{{{{index .Config.Labels "{LABEL}"}}}}', reference)


def _arguments(s: Settings, image: StandIn) -> dict[str, str]:
    known = {**s.pins, **image.arguments}
    lines = image.dockerfile().splitlines()
    return {name: known[name] for name in (line.split()[1] for line in lines if line.startswith("ARG "))}


def _fingerprint(s: Settings, sh: Shell, image: StandIn) -> str:
    seen = hashlib.sha256(image.dockerfile().encode())
    seen.update(repr(sorted(_arguments(s, image).items())).encode())
    seen.update(
        repr(
            sorted((inside, str(program.parent.parent.name)) for inside, program in image.files.items())
        ).encode()
    )
    if image.folder:
        for path in sorted((FOLDERS / image.folder).rglob("*")):
            if path.is_file():
                seen.update(f"{path.relative_to(FOLDERS)} {path.stat().st_mode}".encode() + path.read_bytes())
    if image.base:
        seen.update(_identity(sh, image.base).encode())
    return seen.hexdigest()[:16]
