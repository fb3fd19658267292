"""`python3 -m tests.cluster COMMAND`: what the Makefile calls."""

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from . import debian, engine, network, node, operator_image, plan, registry, standins
from .progress import Step, walk
from .settings import CLUSTER, Settings, load
from .shell import Failed, Shell


class Session:
    """One run of a command: its settings, its shell and when it began."""

    def __init__(self, s: Settings, sh: Shell) -> None:
        self.s, self.sh, self.begin = s, sh, time.monotonic()

    def walk(self, steps: Iterable[Step]) -> bool:
        """Walk the steps; whether all are done."""
        return walk(steps, self.sh, self.s.cache / "logs", self.begin)

    @property
    def seconds(self) -> str:
        """How long it has taken so far."""
        return f"{time.monotonic() - self.begin:.0f} s"


def up(run: Session) -> int:
    """bring the cluster up, whatever of it is missing"""
    s, sh = run.s, run.sh
    if not run.walk(plan.host(s, sh)):
        return 1
    build, why = plan.choose(s, sh)
    print(why, flush=True)
    images = plan.built(s, sh) if build else plan.pulled(s, sh)
    if not (
        run.walk(plan.host_tools(s, sh, build)) and run.walk(images) and run.walk(plan.cluster(s, sh, build))
    ):
        return 1
    print(f"\nCluster {CLUSTER} is up ({run.seconds}). Your own kubectl context is as it was.")
    print(f"  export KUBECONFIG={s.kubeconfig}")
    print(f"  export PATH={s.bin}:$PATH")
    print(f"  NodePorts answer at {node.address(sh)} from this machine.")
    return 0


def images(run: Session) -> int:
    """build the operator's image from this checkout and have the node hold it; prints its reference"""
    if not run.walk([plan.operator(run.s, run.sh)]):
        return 1
    print(operator_image.reference(run.s, run.sh))
    return 0


def earlier(run: Session) -> int:
    """have the registry hold the MLflow versions that tests upgrade from"""
    build, _ = plan.choose(run.s, run.sh)
    return 0 if run.walk(plan.earlier(run.s, run.sh, build)) else 1


def python(run: Session) -> int:
    """make the project's Python environment what uv.lock says"""
    return 0 if run.walk(plan.python(run.s, run.sh)) else 1


def chart_tools(run: Session) -> int:
    """build what only the chart's tests need"""
    return 0 if run.walk(plan.chart_tools(run.s, run.sh)) else 1


def bench_tools(run: Session) -> int:
    """build what only the benchmarks need"""
    return 0 if run.walk(plan.bench_tools(run.s, run.sh)) else 1


def down(run: Session) -> int:
    """take away what `up` made on this machine, and nothing else; the cache stays"""
    s, sh = run.s, run.sh
    if sh.ok("docker", "--version"):
        if not engine.answers(sh):
            engine.start(s, sh)  # it holds what is to go
        node.delete(sh)
        registry.remove(sh)
        network.remove(sh)
        for reference in operator_image.all_references(s, sh):
            sh.ok("docker", "rmi", reference, timeout=120)
        standins.remove_all(s, sh)
    engine.stop(s, sh)
    s.kubeconfig.unlink(missing_ok=True)
    print("The cluster, its registry, its network and the images built here are gone.")
    print(f"{s.cache} stays, for the next time: make clean-cache removes it.")
    return 0


def clean_cache(run: Session) -> int:
    """remove the cache: what was built is then built again"""
    if engine.answers(run.sh) and run.sh.ok("docker", "container", "inspect", node.CONTAINER):
        print("The cluster still needs the cache. Run make clean first.")
        return 1
    engine.stop(run.s, run.sh)
    shutil.rmtree(run.s.cache, ignore_errors=True)
    print(f"{run.s.cache} is gone.")
    return 0


COMMANDS = {
    "up": up,
    "images": images,
    "earlier": earlier,
    "python": python,
    "chart-tools": chart_tools,
    "bench-tools": bench_tools,
    "down": down,
    "clean-cache": clean_cache,
}


@contextmanager
def alone(s: Settings) -> Iterator[int]:
    """Hold the machine's one lock: two runs at once would build the same things over each other."""
    s.cache.mkdir(parents=True, exist_ok=True)
    with (s.cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another run is at work on the cluster; waiting for it to end.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _authorities() -> dict[str, str]:
    """pip and uv bring their own list of authorities; the machine's may hold more."""
    bundle = str(debian.AUTHORITIES)
    return (
        {n: os.environ.get(n, bundle) for n in ("SSL_CERT_FILE", "PIP_CERT")}
        if os.path.exists(bundle)
        else {}
    )


def main() -> int:
    """Exit code 0 when all is as asked, 1 when a step failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description="The test cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__)
    asked = parser.parse_args()
    try:
        s = load()
    except ValueError as mistake:
        print(mistake)
        return 2
    path = f"{s.bin}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    sh = Shell(s.cache / "logs" / "first.log", {"PATH": path, **_authorities()})
    with alone(s) as sh.lock:
        try:
            return COMMANDS[asked.command](Session(s, sh))
        except Failed as fault:
            print(f"\n{fault}. {fault.hint}")
            return 1
        except KeyboardInterrupt:
            print("\nStopped. Run the same command again to go on: what is finished stays.")
            return 130


if __name__ == "__main__":
    sys.exit(main())
