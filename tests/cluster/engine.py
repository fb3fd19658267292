"""The docker engine: a running one, or one that this module starts and that keeps running after the command."""

import os
import shutil
import signal
import time
from pathlib import Path

from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError

START_TIMEOUT_SECONDS = 60
CAP_SYS_RESOURCE = 24
# A range reserved for tests (RFC 2544), so it hides no network that the machine uses.
BRIDGE_ADDRESS = "198.18.0.1/24"
HERE = Path(__file__).parent


def is_available(sh: Shell) -> bool:
    """Whether this user can use a docker engine."""
    return sh.succeeds("docker", "version", "--format", "{{.Server.Version}}")


def is_suitable(sh: Shell) -> bool:
    """Whether an engine answers whose image store provides layers without compression."""
    return is_available(sh) and not _uses_containerd(sh)


def start(s: Settings, sh: Shell) -> None:
    """Start the engine: through systemd if it runs, otherwise as a process in its own session."""
    if is_available(sh):
        raise StepError(
            "docker keeps its images in containerd, which this project does not support",
            'Write {"features": {"containerd-snapshotter": false}} to /etc/docker/daemon.json, restart docker, and run '
            "the same command again.",
        )
    if os.geteuid() != 0:
        raise StepError(
            "no docker engine answers, and only root can start one",
            "Start docker, or let this user use it (group docker), and run the same command again.",
        )
    log = s.cache / "logs" / "dockerd.log"
    if Path("/run/systemd/system").exists():
        sh.run("systemctl", "start", "docker")
    else:
        if _dockerd_pid(Path("/var/run/docker.pid")):
            raise StepError(
                "a docker engine runs but does not answer", "Stop it, and run the same command again."
            )
        Path("/var/run/docker.pid").unlink(missing_ok=True)  # left behind by a killed engine
        argv = ["dockerd", "--bip", BRIDGE_ADDRESS, *_runtime_options(s)]
        _pid_file(s).write_text(str(sh.spawn(argv, log)))
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_available(sh):
        has_exited = _pid_file(s).exists() and _running_pid(s) is None
        if has_exited or time.monotonic() > deadline:
            sh.append_to_log(log.read_text() if log.exists() else "")
            raise StepError(
                "the docker engine " + ("exited" if has_exited else "does not answer"), f"See {log}."
            )
        time.sleep(0.2)


def stop(s: Settings, sh: Shell) -> bool:
    """Stop the engine if `start` started it. Returns whether it did."""
    pid = _running_pid(s)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    while _running_pid(s) == pid:
        time.sleep(0.2)
    _pid_file(s).unlink(missing_ok=True)
    return True


def _uses_containerd(sh: Shell) -> bool:
    return "io.containerd.snapshotter" in (sh.try_output("docker", "info", "-f", "{{.DriverStatus}}") or "")


def _running_pid(s: Settings) -> int | None:
    return _dockerd_pid(_pid_file(s))


def _dockerd_pid(pid_file: Path) -> int | None:
    """Return the process ID in the file if it is a running dockerd."""
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        dead = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" and not dead else None


def _pid_file(s: Settings) -> Path:
    return s.cache / "dockerd.pid"


def _runtime_options(s: Settings) -> list[str]:
    """If the machine cannot grant a capability that docker requests, use a shim that removes it from the request."""
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
    if bounding >> CAP_SYS_RESOURCE & 1:
        return []
    # A copy, because the engine can outlive this checkout.
    shim = shutil.copy(HERE / "runc-fit", s.cache)
    return ["--add-runtime", f"fit={shim}", "--default-runtime", "fit"]
