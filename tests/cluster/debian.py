"""Base images made from Debian's archive, with the packages of every image that is built on them.

One installation for all is faster than one per image, and its layer exists once in docker, in the registry and on the
node.
"""

import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path

from tests.cluster.settings import Settings
from tests.cluster.shell import Failed, Shell

LABEL = "mlflow-operator.dev/stand-in"
"""Label of every image that is built here; its value identifies what the image was built from."""
REPOSITORY = "mlflow-operator.dev/debian"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The host's certificate authorities. It may reach the package indexes through an authority of its own."""
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_UPDATING = threading.Lock()
"""Both releases are installed side by side, and apt-get update does not wait for another one."""
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
NODE = (
    "ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "curl", "dbus", "ethtool", "hostname",
    "iproute2", "iptables", "kmod", "mount", "nftables", "procps", "psmisc", "runc", "socat", "systemd", "systemd-sysv",
    "util-linux",
)  # fmt: skip
"""Packages of the node and of kube-proxy."""
OTHERS = (
    "busybox-static", "ca-certificates", "curl", "docker-registry", "gosu", "locales", "python3", "python3-pip",
    "python3-venv",
)  # fmt: skip
"""Packages of all other images. Those of one image only, such as Postgres, are installed by its Dockerfile."""
OPTIONS = (
    *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
    # As in Debian's own images: an image that was interrupted is built again, so nothing has to reach the disk at once.
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    # apt's indexes of its package lists: 90 MB in each image that installs something.
    '--aptopt=Dir::Cache::pkgcache ""',
    '--aptopt=Dir::Cache::srcpkgcache ""',
)
"""Options that stay in force in the image: they also apply to packages that are installed on top of it."""


def reference(suite: str) -> str:
    """The name under which Dockerfiles use the base image."""
    return f"{REPOSITORY}:{suite}"


def fingerprint(s: Settings, suite: str) -> str:
    """What the base image is made from: the suite, its packages, and the host's own certificate authorities."""
    made_from = f"{suite} {packages(s, suite)} {OPTIONS} {''.join(_own_authorities())}"
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def packages(s: Settings, suite: str) -> tuple[str, ...]:
    """The packages that the base image contains besides the essential ones."""
    return NODE if suite == s.pins["DEBIAN_NODE"] else OTHERS


def archive(s: Settings, suite: str) -> Path:
    """The file in the cache with the base image's files."""
    return s.cache / f"debian-{suite}-{fingerprint(s, suite)}.tar"


def bootstrap(s: Settings, sh: Shell, suite: str) -> None:
    """Install a minimal Debian into a tar file in the cache."""
    if os.geteuid() != 0:
        raise Failed(
            "no image registry answers, and only root can build images from Debian packages",
            "Run as root, or where docker.io, ghcr.io and quay.io are reached.",
        )
    tar = archive(s, suite)
    partial = tar.with_suffix(".part.tar")
    primary, security = _archives(sh)
    sources = [f"deb {primary} {suite} main", f"deb {primary} {suite}-updates main"]
    if security:
        sources.append(f"deb {security} {suite}-security main")
    with tempfile.TemporaryDirectory() as folder:
        trust = _trust_hooks(Path(folder))
        include = f"--include={','.join(packages(s, suite))}"
        sh.run(
            "mmdebstrap",
            "--variant=minbase",
            "--mode=root",
            include,
            *OPTIONS,
            *trust,
            suite,
            partial,
            *sources,
        )
    partial.rename(tar)


def _trust_hooks(folder: Path) -> list[str]:
    """Options that add the host's own authorities where update-ca-certificates, which packages run, looks for them."""
    for number, certificate in enumerate(_own_authorities()):
        (folder / f"host-{number}.crt").write_text(f"{certificate}\n")
    files = sorted(folder.glob("*.crt"))
    if not files:
        return []
    return [
        f"--customize-hook=copy-in {' '.join(map(str, files))} /usr/local/share/ca-certificates",
        '--customize-hook=chroot "$1" update-ca-certificates',
    ]


def load(s: Settings, sh: Shell, suite: str) -> None:
    """Have docker hold the base image."""
    label = f"LABEL {LABEL}={fingerprint(s, suite)}"
    sh.run("docker", "import", "--change", label, archive(s, suite), reference(suite))


def _archives(sh: Shell) -> tuple[str, str | None]:
    """Where this machine gets its own Debian packages from, perhaps a mirror, and its security updates."""
    with _UPDATING:
        return _read_archives(sh)


def _read_archives(sh: Shell) -> tuple[str, str | None]:
    query = (
        "apt-get",
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Origin: Debian",
        "Created-By: Packages",
    )
    answer = sh.out(*query)
    if not answer.strip():  # a new machine has no package lists
        sh.run("apt-get", "update", "-qq", cancellable=False)
        answer = sh.out(*query)
    found = dict(line.split() for line in reversed(answer.splitlines()) if line)
    if "Debian" not in found:
        raise Failed(
            "apt is configured without a Debian archive",
            "Add one to /etc/apt/sources.list, then run make cluster again.",
        )
    return found["Debian"], found.get("Debian-Security")


def _own_authorities() -> list[str]:
    """Certificates that the host trusts in addition to those of Debian's package `ca-certificates`."""
    if not AUTHORITIES.exists():
        return []
    known = _distributed()
    return [one for one in CERTIFICATE.findall(AUTHORITIES.read_text()) if one.strip() not in known]


def _distributed() -> set[str]:
    folder = Path("/usr/share/ca-certificates")
    return {path.read_text(errors="replace").strip() for path in folder.rglob("*.crt")}
