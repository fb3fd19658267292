"""`python3 -m tests.cluster COMMAND`: commands that the Makefile calls."""

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
    golang,
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
from tests.cluster.shell import Shell, StepError

LOCK, TEST_IMAGES_LOCK, LINT_LOCK = "lock", "lock-test-images", "lock-lint-tools"
CLOUDNATIVEPG_LOCK = "lock-cloudnativepg"
NONINTERACTIVE_ENV = {"PIP_NO_INPUT": "1"}
"""Environment in which no step waits for input: pip would otherwise ask for the password of a package index."""
LOCKS = (
    LOCK,
    TEST_IMAGES_LOCK,
    CLOUDNATIVEPG_LOCK,
    LINT_LOCK,
    golang.INSTALL_LOCK,
    substitute_images.LOADING_LOCK,
    usage_lock.FILE,
)


class Session:
    """One run of a command: its settings, its shell, and its start time."""

    def __init__(self, s: Settings, sh: Shell) -> None:
        self.s, self.sh, self.start_time = s, sh, time.monotonic()

    def run(self, steps: Iterable[Step]) -> bool:
        """Run the steps; returns whether all have succeeded."""
        return run_steps(list(steps), self.sh, self.s.cache / "logs", self.start_time)

    @property
    def elapsed(self) -> str:
        """Time since the start of the run, for example `4 min 5 s`."""
        minutes, seconds = divmod(round(time.monotonic() - self.start_time), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def up(run: Session) -> int:
    """create the cluster, with the images and the Python environment that make demo needs"""
    return _up(run, [])


def demo(run: Session) -> int:
    """like up, and install the operator meanwhile"""
    return _up(run, plan.demo(run.s))


def test_cluster(run: Session) -> int:
    """like up, then docker-images"""
    return up(run) or docker_images(run)


def _up(run: Session, extra_steps: Iterable[Step]) -> int:
    s, sh = run.s, run.sh
    # The choice between published images and stand-ins needs neither docker nor a compiler.
    build, reason = plan.choose_images(s, sh)
    print(reason, flush=True)
    if not run.run([*plan.host(s, build=build), *plan.up(s, sh, build=build), *extra_steps]):
        return 1
    print(f"\nCluster {CLUSTER} is up ({run.elapsed} in total). Your own kubectl context is unchanged.")
    print(f"  export KUBECONFIG={s.kubeconfig}")
    print(f"  export PATH={s.bin}:$PATH")
    print(f"  NodePorts answer at {node.address(sh)} from this machine.")
    return 0


def images(run: Session) -> int:
    """build the operator's image from this checkout, pull it on the node, and print its reference"""
    if not run.run(plan.operator(run.s)):
        return 1
    print(operator_image.reference(run.s, run.sh))
    return 0


def test_images(run: Session) -> int:
    """build or pull the images that only tests use"""
    build, _ = plan.choose_images(run.s, run.sh)
    return 0 if run.run(plan.test_images(run.s, run.sh, build=build)) else 1


def cloudnativepg_images(run: Session) -> int:
    """build or pull the images of CloudNativePG, which only one long-running test uses"""
    build, _ = plan.choose_images(run.s, run.sh)
    return 0 if run.run(plan.cloudnativepg_images(run.s, build=build)) else 1


def docker_images(run: Session) -> int:
    """copy the images that tests run outside the cluster into docker"""
    return 0 if run.run(plan.docker_images(run.s)) else 1


def python(run: Session) -> int:
    """install the packages of uv.lock into .venv"""
    steps = [*plan.toolchain(run.s, run.sh), *plan.python_environment(run.s)]
    return 0 if run.run([step for step in steps if step.name in {plan.UV, plan.ENVIRONMENT}]) else 1


def control_plane(run: Session) -> int:
    """build etcd and the control plane's programs, for tests without a cluster"""
    return 0 if run.run(plan.control_plane(run.s, run.sh)) else 1


def test_tools(run: Session) -> int:
    """build the programs that only tests and benchmarks use"""
    return 0 if run.run(plan.test_tools(run.s, run.sh)) else 1


def lint_tools(run: Session) -> int:
    """build the linters that are Go programs; another run may create the cluster meanwhile"""
    return 0 if run.run(plan.lint_tools(run.s, run.sh)) else 1


def down(run: Session) -> int:
    """remove what `up` created on this machine, and nothing else; the cache stays"""
    s, sh = run.s, run.sh
    if sh.succeeds("docker", "--version"):
        if not engine.is_available(sh):
            engine.start(s, sh)  # the containers and images to remove are in the engine
        with usage_lock.claim(s):
            node.delete(sh)
        registry.remove(s, sh)
        network.remove(sh)
        for reference in operator_image.all_references(s, sh):
            sh.succeeds("docker", "rmi", reference, timeout=120)
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
    if engine.is_available(sh) and any(
        sh.succeeds("docker", "container", "inspect", name) for name in containers
    ):
        print("The cluster or its registry still needs the cache. Run make clean first.")
        return 1
    engine.stop(s, sh)
    with locked(s, TEST_IMAGES_LOCK), locked(s, CLOUDNATIVEPG_LOCK), usage_lock.claim(s):
        # Keep the lock files, because another process may wait for one of them.
        for path in s.cache.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in LOCKS:
                path.unlink()
    print(f"Removed everything in {s.cache}.")
    return 0


@dataclass(frozen=True)
class Command:
    """The function of a command, and its lock: commands with the same lock wait for each other."""

    call: Callable[[Session], int]
    lock: str = LOCK


COMMANDS = {
    "up": Command(up),
    "demo": Command(demo),
    "test-cluster": Command(test_cluster),
    "images": Command(images),
    "test-images": Command(test_images, TEST_IMAGES_LOCK),
    "cloudnativepg-images": Command(cloudnativepg_images, CLOUDNATIVEPG_LOCK),
    "docker-images": Command(docker_images),
    "python": Command(python),
    "control-plane": Command(control_plane),
    "test-tools": Command(test_tools),
    "lint-tools": Command(lint_tools, LINT_LOCK),
    "down": Command(down),
    "clean-cache": Command(clean_cache),
}


def locked(s: Settings, name: str) -> AbstractContextManager[int]:
    """Hold a lock on this machine, so that two runs do not build the same things in parallel."""
    s.cache.mkdir(parents=True, exist_ok=True)
    logs = s.cache / "logs"
    return locks.hold(s.cache / name, f"Waiting for another run of the same kind to finish. Its logs: {logs}")


def _authority_env() -> dict[str, str]:
    """Let pip and uv use the machine's certificate authorities instead of their own lists."""
    bundle = str(debian.AUTHORITIES)
    return (
        {n: os.environ.get(n, bundle) for n in ("SSL_CERT_FILE", "PIP_CERT")}
        if os.path.exists(bundle)
        else {}
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run a command. Exit codes: 0 for success, 1 if a step failed, 2 for wrong usage, 130 after Ctrl-C."""
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
    sh = Shell(s.cache / "logs" / "first.log", {"PATH": path, **NONINTERACTIVE_ENV, **_authority_env()})
    command = COMMANDS[arguments.command]
    # Stop the commands of this run like Ctrl-C does. A closed terminal sends SIGHUP.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sh.log.parent.mkdir(parents=True, exist_ok=True)
        with locked(s, command.lock) as sh.lock:
            return command.call(Session(s, sh))
    except StepError as failure:
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
