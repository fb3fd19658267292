"""Programs the project needs on the host: from Debian packages, Go modules and PyPI, into the cache."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from . import golang, programs
from .settings import CLUSTER, Settings
from .shell import Failed, Shell

# What is looked for -> the Debian package that brings it.
CLIENT = {"docker": "docker.io"}
ENGINE = {"dockerd": "docker.io", "runc": "runc"}
FILTER = {"iptables": "iptables"}
BUILD = {"debootstrap": "debootstrap"}
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def missing_engine_packages(answers: bool) -> list[str]:
    """Debian packages for a docker engine: with one at hand its client will do."""
    return _missing(CLIENT | ({} if answers else ENGINE) | (FILTER if os.geteuid() == 0 else {}))


def missing_packages(build: bool) -> list[str]:
    """Debian packages for what is made on the host, and for base images if those are built here."""
    return sorted([*_missing(BUILD if build else {}), *([] if _has_venv() else ["python3-venv"])])


def install_packages(sh: Shell, packages: list[str]) -> None:
    """apt-get install, as root on Debian. Elsewhere Failed with the one list of what to install."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed(
            f"this needs {', '.join(packages)}, and only root on Debian can have it installed for them",
            "Install these (the names are Debian's) and run the same command again.",
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Debian starts the daemons it installs: they must not hold our lock for as long as they run.
    free = replace(sh, lock=None)
    free.run("apt-get", "update", "-q", env=quiet)
    free.run(
        "apt-get",
        "install",
        "-yq",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=120",
        *packages,
        env=quiet,
    )


def has_venv(s: Settings) -> bool:
    """Whether the cache holds a virtual environment with uv of the pinned version."""
    return (s.cache / "venv" / f"uv-{s.pins['UV']}").exists()


def make_venv(s: Settings, sh: Shell) -> None:
    """A virtual environment with pip and uv: the one thing the system's Python is asked for."""
    venv = s.cache / "venv"
    sh.run(sys.executable, "-m", "venv", "--clear", venv)
    sh.run(venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", f"uv=={s.pins['UV']}")
    link(s, "uv", venv / "bin" / "uv")
    (venv / f"uv-{s.pins['UV']}").touch()


def is_synced(s: Settings, sh: Shell) -> bool:
    """Whether .venv holds what uv.lock says."""
    return sh.ok("uv", "sync", "--frozen", "--check", "--quiet", "--project", s.root, timeout=60)


def sync(s: Settings, sh: Shell) -> None:
    """Make .venv what uv.lock says."""
    sh.run("uv", "sync", "--frozen", "--project", s.root, "--python", sys.executable, cwd=s.root)


def has(s: Settings, name: str) -> bool:
    """Whether a Go tool of the pinned version is on the project's PATH."""
    module = programs.tools(s.pins)[name]
    return module.built(s) and (s.bin / name).resolve() == module.program(s, name).resolve()


def make(s: Settings, sh: Shell, name: str) -> None:
    """Build a Go tool and put it on the project's PATH."""
    module = programs.tools(s.pins)[name]
    if not module.built(s):
        golang.build(s, sh, module)
    link(s, name, module.program(s, name))


def has_kubectl(s: Settings) -> bool:
    """Whether kubectl of the cluster's version is on the project's PATH."""
    return (s.bin / "kubectl").exists() and (s.bin / "kubectl").resolve() == _kubectl(s).resolve()


def make_kubectl(s: Settings, sh: Shell) -> None:
    """Take kubectl out of the node image, which always holds the one that fits."""
    name = f"{CLUSTER}-kubectl"
    sh.ok("docker", "rm", "-f", name)
    sh.run("docker", "create", "--name", name, "--network", "none", s.pins["IMAGE_NODE"])
    _kubectl(s).parent.mkdir(parents=True, exist_ok=True)
    sh.run("docker", "cp", f"{name}:/usr/bin/kubectl", _kubectl(s))
    sh.run("docker", "rm", "-f", name)
    link(s, "kubectl", _kubectl(s))


def link(s: Settings, name: str, program: Path) -> None:
    """Make `program` the one that `name` means for all that `make` starts."""
    s.bin.mkdir(parents=True, exist_ok=True)
    fresh = s.bin / f".{name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(program)
    fresh.rename(s.bin / name)


def _missing(wanted: Mapping[str, str]) -> list[str]:
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return sorted({package for program, package in wanted.items() if not shutil.which(program, path=path)})


def _kubectl(s: Settings) -> Path:
    return s.cache / f"kubectl-{s.pins['KUBERNETES']}" / "kubectl"


def _has_venv() -> bool:
    try:
        import ensurepip  # noqa: F401, PLC0415  Debian splits it off into python3-venv
    except ImportError:
        return False
    return True
