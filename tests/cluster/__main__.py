"""`python3 -m tests.cluster COMMAND`: the commands that the Makefile calls."""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.cluster import (
    debian,
    engine,
    locks,
    network,
    node,
    operator_image,
    plan,
    problems,
    registry,
    substitute_images,
    usage_lock,
)
from tests.cluster.progress import Step, run_steps
from tests.cluster.settings import CLUSTER, Settings, load
from tests.cluster.shell import Failed, Shell

LOCK, TEST_IMAGES_LOCK = "lock", "lock-test-images"
UNATTENDED = {"PIP_NO_INPUT": "1"}
"""Environment in which no step waits for an answer on the terminal: pip would ask for a package index' password."""
LOCKS = (LOCK, TEST_IMAGES_LOCK, substitute_images.LOCK, usage_lock.FILE)


class Session:
    """One run of a command: its settings, its shell, and when it began."""

    def __init__(self, s: Settings, sh: Shell) -> None:
        self.s, self.sh, self.begin = s, sh, time.monotonic()

    def run(self, steps: Iterable[Step]) -> bool:
        """Run the steps; whether all are done."""
        return run_steps(list(steps), self.sh, self.s.cache / "logs", self.begin)

    @property
    def elapsed(self) -> str:
        """How long the run has taken so far, as in `4 min 5 s`."""
        minutes, seconds = divmod(round(time.monotonic() - self.begin), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def up(run: Session) -> int:
    """bring the cluster up, with the images and the Python environment that make demo needs"""
    return _up(run, [])


def demo(run: Session) -> int:
    """the same, and install the operator meanwhile"""
    return _up(run, plan.demo(run.s))


def test_cluster(run: Session) -> int:
    """the same as up, then docker-images"""
    return up(run) or docker_images(run)


def _up(run: Session, more: Iterable[Step]) -> int:
    s, sh = run.s, run.sh
    # Choosing between published images and stand-ins needs neither docker nor a compiler.
    build, reason = plan.choose(s, sh)
    print(reason, flush=True)
    if not run.run([*plan.host(s, build=build), *plan.up(s, sh, build=build), *more]):
        return 1
    print(f"\nCluster {CLUSTER} is up ({run.elapsed} in total). Your own kubectl context is unchanged.")
    print(f"  export KUBECONFIG={s.kubeconfig}")
    print(f"  export PATH={s.bin}:$PATH")
    print(f"  NodePorts answer at {node.address(sh)} from this machine.")
    return 0


def images(run: Session) -> int:
    """build the operator's image from this checkout and have the node pull it; prints its reference"""
    if not run.run(plan.operator(run.s)):
        return 1
    print(operator_image.reference(run.s, run.sh))
    return 0


def test_images(run: Session) -> int:
    """build or pull the images that only tests use"""
    build, _ = plan.choose(run.s, run.sh)
    return 0 if run.run(plan.test_images(run.s, run.sh, build=build)) else 1


def docker_images(run: Session) -> int:
    """copy the images that tests run outside the cluster into docker"""
    return 0 if run.run(plan.docker_images(run.s)) else 1


def python(run: Session) -> int:
    """install the packages of uv.lock into .venv"""
    steps = [*plan.toolchain(run.s, run.sh), *plan.python_environment(run.s)]
    return 0 if run.run([step for step in steps if step.name in {plan.UV, plan.ENVIRONMENT}]) else 1


def control_plane(run: Session) -> int:
    """build etcd and the programs of the control plane, for tests without a cluster"""
    return 0 if run.run(plan.control_plane(run.s, run.sh)) else 1


def test_tools(run: Session) -> int:
    """build the programs that only tests and benchmarks use"""
    return 0 if run.run(plan.test_tools(run.s, run.sh)) else 1


def down(run: Session) -> int:
    """remove what `up` created on this machine, and nothing else; the cache stays"""
    s, sh = run.s, run.sh
    if sh.ok("docker", "--version"):
        if not engine.answers(sh):
            engine.start(s, sh)  # it holds what is to be removed
        with usage_lock.claim(s):
            node.delete(sh)
        registry.remove(s, sh)
        network.remove(sh)
        for reference in operator_image.all_references(s, sh):
            sh.ok("docker", "rmi", reference, timeout=120)
        substitute_images.remove_all(s, sh)
    engine.stop(s, sh)
    s.kubeconfig.unlink(missing_ok=True)
    print(
        "Removed the cluster, its registry, its network, and docker's copies of the images that were built here."
    )
    print(f"{s.cache} is kept for the next time; make clean-cache removes it.")
    return 0


def clean_cache(run: Session) -> int:
    """remove the cache: the next run builds everything again"""
    s, sh = run.s, run.sh
    containers = (node.CONTAINER, registry.NAME)
    if engine.answers(sh) and any(sh.ok("docker", "container", "inspect", name) for name in containers):
        print("The cluster or its registry still needs the cache. Run make clean first.")
        return 1
    engine.stop(s, sh)
    with locked(s, TEST_IMAGES_LOCK), usage_lock.claim(s):
        # A process that waits for a lock has its file open, so the files stay.
        for path in s.cache.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in LOCKS:
                path.unlink()
    print(f"Removed everything in {s.cache}.")
    return 0


@dataclass(frozen=True)
class Command:
    """What a command calls, and the lock it holds: commands with the same lock wait for each other."""

    call: Callable[[Session], int]
    lock: str = LOCK


COMMANDS = {
    "up": Command(up),
    "demo": Command(demo),
    "test-cluster": Command(test_cluster),
    "images": Command(images),
    "test-images": Command(test_images, TEST_IMAGES_LOCK),
    "docker-images": Command(docker_images),
    "python": Command(python),
    "control-plane": Command(control_plane),
    "test-tools": Command(test_tools),
    "down": Command(down),
    "clean-cache": Command(clean_cache),
}


def locked(s: Settings, name: str) -> AbstractContextManager[int]:
    """Hold a lock of this machine, so that two runs do not build the same things at once."""
    s.cache.mkdir(parents=True, exist_ok=True)
    logs = s.cache / "logs"
    return locks.hold(s.cache / name, f"Waiting for another run of the same kind to finish. Its logs: {logs}")


def _authorities() -> dict[str, str]:
    """pip and uv have their own list of certificate authorities; the machine may trust more."""
    bundle = str(debian.AUTHORITIES)
    return (
        {n: os.environ.get(n, bundle) for n in ("SSL_CERT_FILE", "PIP_CERT")}
        if os.path.exists(bundle)
        else {}
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Exit code 0 on success, 1 if a step failed, 2 for a wrong call, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description="The test cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.call.__doc__)
    arguments = parser.parse_args()
    try:
        s = load()
    except ValueError as error:
        print(error)
        return 2
    path = f"{s.bin}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    sh = Shell(s.cache / "logs" / "first.log", {"PATH": path, **UNATTENDED, **_authorities()})
    command = COMMANDS[arguments.command]
    # They stop the commands of this run as Ctrl-C does. A terminal that closes sends SIGHUP.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sh.log.parent.mkdir(parents=True, exist_ok=True)
        with locked(s, command.lock) as sh.lock:
            return command.call(Session(s, sh))
    except Failed as failure:
        print(f"\n{failure}. {failure.hint}")
        return 1
    except OSError as error:
        print(f"\n{problems.full_disk(s.cache) or error}")
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to continue: finished steps are kept.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
