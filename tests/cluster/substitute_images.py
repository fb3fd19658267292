"""Stand-ins for published images, built under the same references from Debian packages, Go modules and PyPI.

The local registry stores them. An image is up to date if its label in the registry matches the hash of its inputs.
"""

import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import debian, locks, programs, registry, tools
from tests.cluster.debian import LABEL
from tests.cluster.settings import Settings
from tests.cluster.shell import Shell

IMAGES_FOLDER = Path(__file__).parent / "images"
EARLIER_MLFLOW = "IMAGE_MLFLOW_"
"""Prefix of the pins of the MLflow versions that tests upgrade from."""


@dataclass(frozen=True)
class StandIn:
    """An image: the folder of its Dockerfile, and additional files of the build context.

    `more_references` are further references of the same image. `bases` are the images in its FROM lines that are also
    built here.
    """

    reference: str
    folder: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Path in the build context -> file in the cache, whose path contains a hash of its content."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    bases: "tuple[StandIn, ...]" = ()
    more_references: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Last part of the reference, without registry and path."""
        return self.reference.rsplit("/", 1)[1]

    @property
    def dockerfile(self) -> Path:
        """Path of the Dockerfile."""
        return IMAGES_FOLDER / self.folder / "Dockerfile"

    def suites(self, s: Settings) -> list[str]:
        """Return the Debian releases in its FROM lines."""
        names = re.findall(
            rf"^FROM {debian.REPOSITORY}:\$\{{(\w+)\}}", self.dockerfile.read_text(), re.MULTILINE
        )
        return [s.pins[name] for name in names]

    def build_arguments(self, s: Settings) -> dict[str, str]:
        """Return the values of the Dockerfile's ARG lines."""
        known = {**s.pins, **self.arguments}
        lines = self.dockerfile.read_text().splitlines()
        return {name: known[name] for name in (line.split()[1] for line in lines if line.startswith("ARG "))}

    def fingerprint(self, s: Settings) -> str:
        """Return a hash of the image's inputs, which is the value of its label."""
        bases = [base.fingerprint(s) for base in self.bases]
        bases += [debian.fingerprint(s, suite) for suite in self.suites(s)]
        digest = hashlib.sha256("".join(bases).encode())
        digest.update(repr(sorted(self.build_arguments(s).items())).encode())
        files = sorted((inside, str(path.relative_to(s.cache))) for inside, path in self.files.items())
        digest.update(repr(files).encode())
        for path in sorted(path for path in self.dockerfile.parent.rglob("*") if path.is_file()):
            digest.update(
                f"{path.relative_to(IMAGES_FOLDER)} {path.stat().st_mode}".encode() + path.read_bytes()
            )
        return digest.hexdigest()[:16]


LOADING_LOCK = "lock-loading"
"""Images are built in parallel, by several processes; two of them with the same base must not load it twice."""


def registry_image(s: Settings) -> StandIn:
    """The registry itself, the only image that cannot be pulled from the registry."""
    return StandIn(s.pins["IMAGE_REGISTRY"], "registry")


def python(s: Settings) -> StandIn:
    """The base image of MLflow's and the operator's image."""
    return StandIn(s.pins["IMAGE_PYTHON"], "python")


def mlflow(s: Settings) -> StandIn:
    """MLflow's image, for servers and Jobs."""
    arguments = {"VERSION": s.pins["MLFLOW"], "PACKAGES": "all"}
    return StandIn(s.pins["IMAGE_MLFLOW"], "mlflow", arguments=arguments, bases=(python(s),))


def busybox(s: Settings) -> StandIn:
    """The helper image of the volume provisioner."""
    return StandIn(s.pins["IMAGE_BUSYBOX"], "busybox")


def postgres(s: Settings) -> StandIn:
    """The embedded database."""
    return StandIn(s.pins["IMAGE_POSTGRES"], "postgres")


def minio(s: Settings) -> StandIn:
    """The embedded artifact store."""
    program = programs.minio().program(s, "minio")
    return StandIn(s.pins["IMAGE_MINIO"], "minio", {"minio": program})


def node(s: Settings) -> StandIn:
    """The node: Debian with kubelet, kubeadm and kubectl."""
    files = {"kubernetes": programs.node(s.pins).program(s, "kubernetes"), "kubectl": tools.kubectl(s)}
    arguments = {"IMAGE_PAUSE": s.pins["IMAGE_PAUSE"], "IMAGE_LOCAL_PATH": s.pins["IMAGE_LOCAL_PATH"]}
    return StandIn(s.pins["IMAGE_NODE"], "node", files, arguments)


def control_plane(s: Settings) -> Iterator[StandIn]:
    """The images that kubeadm and kind start on the node."""
    module = programs.node(s.pins)
    names = [
        s.pins[f"IMAGE_{name.replace('-', '_').upper()}"] for name in (*programs.CONTROL_PLANE, "kube-proxy")
    ]
    kubernetes = {"kubernetes": module.program(s, "kubernetes")}
    yield StandIn(names[0], "control-plane", kubernetes, more_references=tuple(names[1:]))
    for pin, program in (("ETCD", "etcd"), ("COREDNS", "coredns"), ("PAUSE", "pause")):
        yield StandIn(s.pins[f"IMAGE_{pin}"], program, {program: module.program(s, program)})
    volumes = "local-path-provisioner"
    yield StandIn(s.pins["IMAGE_LOCAL_PATH"], volumes, {volumes: module.program(s, volumes)})


def toxiproxy(s: Settings) -> StandIn:
    """The proxy that delays and drops connections."""
    program = programs.toxiproxy().program(s, "toxiproxy")
    return StandIn(s.pins["IMAGE_TOXIPROXY"], "toxiproxy", {"toxiproxy": program})


def seaweedfs(s: Settings) -> StandIn:
    """The alternative embedded artifact store."""
    return StandIn(s.pins["IMAGE_SEAWEEDFS"], "seaweedfs", bases=(python(s),))


def pgbouncer(s: Settings) -> StandIn:
    """Debian's PgBouncer. Its project publishes no image, so it is always built here."""
    return StandIn(s.pins["IMAGE_PGBOUNCER"], "pgbouncer", bases=(python(s),))


def cloudnativepg(s: Settings) -> Iterator[StandIn]:
    """CloudNativePG's operator, and the Postgres that it runs."""
    program = programs.cloudnativepg().program(s, "manager")
    yield StandIn(s.pins["IMAGE_CLOUDNATIVEPG"], "cloudnativepg", {"manager": program})
    yield StandIn(s.pins["IMAGE_CLOUDNATIVEPG_POSTGRES"], "cloudnativepg-postgres", bases=(postgres(s),))


def client(s: Settings, sh: Shell) -> StandIn:
    """An image for training pods: MLflow's image with the packages of tests/workflows.

    Teams build such images themselves, so it is always built here.
    """
    project = tomllib.loads((s.root / "pyproject.toml").read_text())
    names = {str(line) for line in project["dependency-groups"]["workflows"]}
    export = ("--frozen", "--only-group", "workflows", "--no-hashes", "--no-annotate", "--no-header", "-q")
    requirements = sh.output("uv", "export", *export, "--project", s.root).splitlines()
    # MLflow's image already has the dependencies of these packages, at the versions that MLflow was built with.
    packages = "\n".join(line for line in requirements if line.split("==")[0] in names)
    return StandIn(s.pins["IMAGE_CLIENT"], "client", arguments={"PACKAGES": packages}, bases=(mlflow(s),))


def earlier_mlflow(s: Settings) -> Iterator[StandIn]:
    """The MLflow versions that tests upgrade from."""
    for reference in (reference for name, reference in s.pins.items() if name.startswith(EARLIER_MLFLOW)):
        version = reference.rpartition(":v")[2].removesuffix("-full")
        arguments = {"VERSION": version, "PACKAGES": "server"}
        yield StandIn(reference, "mlflow", arguments=arguments, bases=(python(s),))


def is_current(s: Settings, sh: Shell, image: StandIn) -> bool:
    """Whether the registry has the image with exactly these inputs, or a published one if that is allowed."""
    return all(
        _is_current(s, sh, image, reference) for reference in (image.reference, *image.more_references)
    )


def _is_current(s: Settings, sh: Shell, image: StandIn, reference: str) -> bool:
    labels = registry.labels(sh, reference)
    if labels is None:
        return False
    return labels.get(LABEL) == image.fingerprint(s) or (LABEL not in labels and s.images != "build")


def build(s: Settings, sh: Shell, image: StandIn) -> None:
    """Build the image and push it to the registry under its published references."""
    build_in_docker(s, sh, image)
    registry.push(s, sh, image.reference, *image.more_references)


def build_in_docker(s: Settings, sh: Shell, image: StandIn) -> None:
    """Build the image in docker."""
    for base in image.bases:
        load(s, sh, base)
    for suite in image.suites(s):
        _load_debian(s, sh, suite)
    context = s.cache / "build" / hashlib.sha256(image.reference.encode()).hexdigest()[:12]
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(image.dockerfile.parent, context)
    for inside, path in image.files.items():
        os.link(path, context / inside)
    previous_id = _image_id(sh, image.reference)
    arguments = [part for k, v in image.build_arguments(s).items() for part in ("--build-arg", f"{k}={v}")]
    label = f"{LABEL}={image.fingerprint(s)}"
    # The build reaches the package indexes through the host's network.
    options = ("-q", "--network", "host", *arguments, "--label", label, "-t", image.reference)
    sh.run("docker", "build", *options, context)
    shutil.rmtree(context)
    # Remove the previous build, but not an image without the label: it may be the published one.
    if previous_id not in ("", _image_id(sh, image.reference)) and _label(sh, previous_id):
        sh.succeeds("docker", "rmi", previous_id, timeout=120)


def is_in_docker(s: Settings, sh: Shell, image: StandIn) -> bool:
    """Whether docker has the image with exactly these inputs, or a published one if that is allowed."""
    label = _label(sh, image.reference)
    return label == image.fingerprint(s) or (label == "" and s.images != "build")


def load(s: Settings, sh: Shell, image: StandIn) -> None:
    """Pull the image from the registry into docker, as a base image or to run it outside the cluster."""
    with locks.hold(s.cache / LOADING_LOCK):
        if not is_in_docker(s, sh, image):
            registry.pull(sh, image.reference)


def _load_debian(s: Settings, sh: Shell, suite: str) -> None:
    with locks.hold(s.cache / LOADING_LOCK):
        if _label(sh, debian.reference(suite)) != debian.fingerprint(s, suite):
            debian.load(s, sh, suite)


def is_stand_in(sh: Shell, reference: str) -> bool:
    """Whether docker or the registry has a stand-in under this reference."""
    return bool(_label(sh, reference)) or LABEL in (registry.labels(sh, reference) or {})


def is_published(sh: Shell, reference: str) -> bool:
    """Whether docker has an image under this reference that is not a stand-in."""
    return _label(sh, reference) == ""


def remove_all(s: Settings, sh: Shell) -> None:
    """Remove all stand-ins from docker, but no images that the user built on top of them."""
    repositories = {
        _docker_name(reference.split(":")[0])
        for name, reference in s.pins.items()
        if name.startswith("IMAGE_")
    }
    repositories |= {debian.REPOSITORY, "<none>"}
    form = "{{.Repository}} {{.Tag}} {{.ID}}"
    lines = sh.output("docker", "images", "--filter", f"label={LABEL}", "--format", form).splitlines()
    for repository, tag, identity in (line.split() for line in lines):
        if repository in repositories:
            sh.succeeds("docker", "rmi", identity if tag == "<none>" else f"{repository}:{tag}", timeout=120)


def _docker_name(repository: str) -> str:
    """Return the name under which docker lists a repository of Docker Hub."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def _image_id(sh: Shell, reference: str) -> str:
    return sh.try_output("docker", "image", "inspect", "-f", "{{.Id}}", reference) or ""


def _label(sh: Shell, reference: str) -> str | None:
    return sh.try_output(
        "docker", "image", "inspect", "-f", f'{{{{index .Config.Labels "{LABEL}"}}}}', reference
    )
