"""Base images made from Debian's own archive, in place of debian:<suite>-slim."""

import os
import re
import shutil
from pathlib import Path

from .settings import Settings
from .shell import Failed, Shell

# Every image that is built here carries it, and tells by it what it was made from; no published one does.
LABEL = "mlflow-operator.dev/stand-in"
# The machine may reach the package registries through a certificate authority of its own.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
LEFT_OUT = (
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def reference(suite: str) -> str:
    """The name under which Dockerfiles use the base."""
    return f"debian:{suite}-slim"


def make(s: Settings, sh: Shell, suite: str) -> None:
    """Debootstrap `suite` once into the cache, and load it into docker."""
    tar = s.cache / f"debian-{suite}.tar"
    if not tar.exists():
        if os.geteuid() != 0:
            raise Failed(
                "no image registry answers, and only root can build images from Debian packages",
                "Run as root, or where docker.io, ghcr.io and quay.io are reached.",
            )
        root = s.cache / f"debian-{suite}"
        _remove(sh, root)
        archive, security = _archives(sh)
        sh.run("debootstrap", "--variant=minbase", "--include=ca-certificates", suite, root, archive)
        _finish(root, suite, archive, security)
        part = tar.with_suffix(".part")
        sh.run("tar", "-C", root, "-cf", part, ".")
        part.rename(tar)
        _remove(sh, root)
    sh.run("docker", "import", "--change", f"LABEL {LABEL}=debian", tar, reference(suite))


def _remove(sh: Shell, root: Path) -> None:
    """Remove a root, without walking into what a debootstrap that was killed left mounted in it."""
    for inside in ("proc", "sys", "dev/pts", "dev"):
        if (root / inside).is_mount():
            sh.run("umount", "-l", root / inside)
    if root.exists():
        shutil.rmtree(root)


def _archives(sh: Shell) -> tuple[str, str | None]:
    """Where this machine has its own packages from, a mirror perhaps; and the same for security updates."""
    asked = (
        "apt-get",
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Origin: Debian",
        "Created-By: Packages",
    )
    answer = sh.out(*asked)
    if not answer.strip():  # no lists: as on a machine that was just set up
        sh.run("apt-get", "update", "-qq")
        answer = sh.out(*asked)
    found = dict(line.split() for line in reversed(answer.splitlines()) if line)
    if "Debian" not in found:
        raise Failed(
            "apt knows no Debian archive", "Name one in /etc/apt/sources.list, then run make cluster again."
        )
    return found["Debian"], found.get("Debian-Security")


def _finish(root: Path, suite: str, archive: str, security: str | None) -> None:
    for left_out in LEFT_OUT:
        shutil.rmtree(root / left_out, ignore_errors=True)
        (root / left_out).mkdir()
    _trust_what_the_host_trusts(root)
    sources = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    if security:
        sources.append(f"deb {security} {suite}-security main")
    (root / "etc/apt/sources.list").write_text("\n".join([*sources, ""]))


def _trust_what_the_host_trusts(root: Path) -> None:
    """Give the image the authorities that the machine has beyond Debian's own, if there are any."""
    if not AUTHORITIES.exists():
        return
    bundle = root / AUTHORITIES.relative_to("/")
    known = bundle.read_text()
    extra = [one for one in CERTIFICATE.findall(AUTHORITIES.read_text()) if one not in known]
    for number, certificate in enumerate(extra):
        # Where update-ca-certificates looks, which packages run whenever they like.
        (root / f"usr/local/share/ca-certificates/host-{number}.crt").write_text(f"{certificate}\n")
    bundle.write_text("\n".join([known.rstrip(), *extra, ""]))
