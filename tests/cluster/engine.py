"""The docker engine: the running one, or one that is started here and outlives the command."""

import os
import shutil
import signal
import time
from pathlib import Path

from tests.cluster.settings import Settings
from tests.cluster.shell import Failed, Shell

START_SECONDS = 60
CAP_SYS_RESOURCE = 24
# A range reserved for tests (RFC 2544), so it hides no network that the machine uses.
BRIDGE_ADDRESS = "198.18.0.1/24"
HERE = Path(__file__).parent


def answers(sh: Shell) -> bool:
    """Whether a docker engine can be used by this user."""
    return sh.ok("docker", "version", "--format", "{{.Server.Version}}")


def is_suitable(sh: Shell) -> bool:
    """Whether an engine answers, with an image store from which layers can be read without compression."""
    return answers(sh) and not _uses_containerd(sh)


def start(s: Settings, sh: Shell) -> None:
    """Start the engine: through systemd where it runs, otherwise as a process in a session of its own."""
    if answers(sh):
        raise Failed(
            "docker keeps its images in containerd, which this project does not support",
            'Write {"features": {"containerd-snapshotter": false}} to /etc/docker/daemon.json, restart docker, and run '
            "the same command again.",
        )
    if os.geteuid() != 0:
        raise Failed(
            "no docker engine answers, and only root can start one",
            "Start docker, or let this user use it (group docker), and run the same command again.",
        )
    log = s.cache / "logs" / "dockerd.log"
    if Path("/run/systemd/system").exists():
        sh.run("systemctl", "start", "docker")
    else:
        if _is_dockerd(Path("/var/run/docker.pid")):
            raise Failed(
                "a docker engine runs and does not answer", "Stop it, and run the same command again."
            )
        Path("/var/run/docker.pid").unlink(missing_ok=True)  # a killed engine leaves it behind
        argv = ["dockerd", "--bip", BRIDGE_ADDRESS, *_runtime(s)]
        _pid_file(s).write_text(str(sh.spawn(argv, log)))
    deadline = time.monotonic() + START_SECONDS
    while not answers(sh):
        ended = _pid_file(s).exists() and _running(s) is None
        if ended or time.monotonic() > deadline:
            sh.note(log.read_text() if log.exists() else "")
            raise Failed("the docker engine " + ("exited" if ended else "does not answer"), f"Look at {log}.")
        time.sleep(0.2)


def stop(s: Settings, sh: Shell) -> bool:
    """Stop the engine if `start` started it. Returns whether it did."""
    pid = _running(s)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    while _running(s) == pid:
        time.sleep(0.2)
    _pid_file(s).unlink(missing_ok=True)
    return True


def _uses_containerd(sh: Shell) -> bool:
    return "io.containerd.snapshotter" in (sh.ask("docker", "info", "-f", "{{.DriverStatus}}") or "")


def _running(s: Settings) -> int | None:
    return _is_dockerd(_pid_file(s))


def _is_dockerd(pid_file: Path) -> int | None:
    """The process ID in the file, if that is a running dockerd."""
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        dead = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" and not dead else None


def _pid_file(s: Settings) -> Path:
    return s.cache / "dockerd.pid"


def _runtime(s: Settings) -> list[str]:
    """Where the machine itself lacks a capability that docker requests, a shim removes it from the request."""
    status = Path("/proc/self/status").read_text()
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
    if bounding >> CAP_SYS_RESOURCE & 1:
        return []
    # A copy, because the engine can outlive this checkout.
    shim = shutil.copy(HERE / "runc-fit", s.cache)
    return ["--add-runtime", f"fit={shim}", "--default-runtime", "fit"]
