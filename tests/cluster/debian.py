"""Base images from Debian's archive, with the packages of all images that are built on them.

One installation for all images is faster than one per image, and its layer exists only once in docker, in the registry
and on the node.
"""

import hashlib
import os
import re
import tempfile
import threading
from pathlib import Path

from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError

LABEL = "mlflow-operator.dev/stand-in"
"""Label of every image that is built here; its value identifies what the image was built from."""
REPOSITORY = "mlflow-operator.dev/debian"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The host's certificate authorities. The host may need additional ones to reach the package indexes."""
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_APT_LOCK = threading.Lock()
"""Both releases are installed in parallel, and apt-get update does not wait for another apt-get update."""
EXCLUDED_PATHS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
NODE_PACKAGES = (
    "ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "curl", "dbus", "ethtool", "hostname",
    "iproute2", "iptables", "kmod", "mount", "nftables", "procps", "psmisc", "runc", "socat", "systemd", "systemd-sysv",
    "util-linux",
)  # fmt: skip
"""Packages of the node and of kube-proxy."""
OTHER_PACKAGES = (
    "busybox-static", "ca-certificates", "curl", "docker-registry", "gosu", "locales", "python3", "python3-pip",
    "python3-venv",
)  # fmt: skip
"""Packages of all other images. Packages of only one image, such as Postgres, are installed by its Dockerfile."""
MMDEBSTRAP_OPTIONS = (
    *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
    # As in Debian's own images: an interrupted build starts again, so dpkg need not sync its files to disk.
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    # apt's caches of its package lists would take 90 MB in each image that installs packages.
    '--aptopt=Dir::Cache::pkgcache ""',
    '--aptopt=Dir::Cache::srcpkgcache ""',
)
"""Options that are stored in the image, so that they also apply to packages that are installed on top of it."""


def reference(suite: str) -> str:
    """Return the reference of the base image in Dockerfiles."""
    return f"{REPOSITORY}:{suite}"


def fingerprint(s: Settings, suite: str) -> str:
    """Return a hash of the base image's inputs: suite, packages, options and additional certificate authorities."""
    inputs = f"{suite} {packages(s, suite)} {MMDEBSTRAP_OPTIONS} {''.join(_additional_authorities())}"
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


def packages(s: Settings, suite: str) -> tuple[str, ...]:
    """Return the packages of the base image besides the essential ones."""
    return NODE_PACKAGES if suite == s.pins["DEBIAN_NODE"] else OTHER_PACKAGES


def archive(s: Settings, suite: str) -> Path:
    """Return the tar file in the cache with the base image's files."""
    return s.cache / f"debian-{suite}-{fingerprint(s, suite)}.tar"


def bootstrap(s: Settings, sh: Shell, suite: str) -> None:
    """Install a minimal Debian into a tar file in the cache."""
    if os.geteuid() != 0:
        raise StepError(
            "no image registry answers, and only root can build images from Debian packages",
            "Run as root, or on a machine that can reach docker.io, ghcr.io and quay.io.",
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
            *MMDEBSTRAP_OPTIONS,
            *trust,
            suite,
            partial,
            *sources,
        )
    partial.rename(tar)


def _trust_hooks(folder: Path) -> list[str]:
    """Return the options that add the host's additional authorities, for update-ca-certificates, which packages run."""
    for number, certificate in enumerate(_additional_authorities()):
        (folder / f"host-{number}.crt").write_text(f"{certificate}\n")
    files = sorted(folder.glob("*.crt"))
    if not files:
        return []
    return [
        f"--customize-hook=copy-in {' '.join(map(str, files))} /usr/local/share/ca-certificates",
        '--customize-hook=chroot "$1" update-ca-certificates',
    ]


def load(s: Settings, sh: Shell, suite: str) -> None:
    """Import the base image into docker."""
    label = f"LABEL {LABEL}={fingerprint(s, suite)}"
    sh.run("docker", "import", "--change", label, archive(s, suite), reference(suite))


def _archives(sh: Shell) -> tuple[str, str | None]:
    """Return the URLs of this machine's Debian archive, which may be a mirror, and of its security updates."""
    with _APT_LOCK:
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
    output = sh.output(*query)
    if not output.strip():  # a new machine has no package lists
        sh.run("apt-get", "update", "-qq", cancellable=False)
        output = sh.output(*query)
    archives = dict(line.split() for line in reversed(output.splitlines()) if line)
    if "Debian" not in archives:
        raise StepError(
            "apt is configured without a Debian archive",
            "Add one to /etc/apt/sources.list, then run make cluster again.",
        )
    return archives["Debian"], archives.get("Debian-Security")


def _additional_authorities() -> list[str]:
    """Return the certificates that the host trusts in addition to Debian's package `ca-certificates`."""
    if not AUTHORITIES.exists():
        return []
    known = _debian_certificates()
    return [
        certificate
        for certificate in CERTIFICATE.findall(AUTHORITIES.read_text())
        if certificate.strip() not in known
    ]


def _debian_certificates() -> set[str]:
    folder = Path("/usr/share/ca-certificates")
    return {path.read_text(errors="replace").strip() for path in folder.rglob("*.crt")}
