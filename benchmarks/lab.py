"""Where figures are taken: the test cluster, with the operator of this checkout on it."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import operator_image
from tests.e2e import release
from tests.e2e.kube import Kube, Object

LABEL = "mlflow-operator.dev/bench"
POLL = 0.05
GONE = 180.0


class Lab:
    """One run. `rounds` is how often a figure is taken that takes seconds; `quick` shortens those that take minutes."""

    def __init__(self, rounds: int, quick: bool) -> None:
        self.kube = Kube()
        self.rounds, self.quick = rounds, quick
        self.begin = time.monotonic()

    def say(self, text: str) -> None:
        """A line of progress, with the seconds since the run began."""
        print(f"{time.monotonic() - self.begin:7.1f} s  {text}", flush=True)

    @property
    def out(self) -> Path:
        """Where results are kept."""
        return self.kube.settings.root / "out" / "bench"

    def build(self) -> str:
        """The operator's image, by its content."""
        return operator_image.reference(self.kube.settings, self.kube.shell).rsplit(":", 1)[1]

    def install(self) -> None:
        """The operator, by Helm; what an earlier run left behind goes first."""
        self.kube.kubectl("get", "--raw", "/readyz", within=20)
        self.kube.kubectl("delete", "namespaces", "-l", LABEL, "--ignore-not-found", within=GONE)
        release.install(self.kube)

    @contextmanager
    def namespace(self, what: str, *, restricted: bool = True) -> Iterator[Kube]:
        """A namespace of its own; gone, with every pod in it, when the context ends."""
        name = f"bench-{what}-{uuid.uuid4().hex[:5]}"
        labels = {LABEL: "true"} | (
            {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
        )
        self.kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        )
        try:
            yield self.kube.within(name)
        finally:
            # gone for good: what still ends would take its share of the next round's processor
            self.kube.kubectl("delete", "namespace", name, f"--timeout={GONE:.0f}s", within=GONE + 10)


def until(what: str, check: Callable[[], Any], within: float, poll: float = POLL) -> float:
    """Waits for a true answer of `check` and returns the moment it came, on the monotonic clock."""
    deadline = time.monotonic() + within
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:.0f} s: {what}")
        time.sleep(poll)
    return time.monotonic()


def is_ready(server: Object | None) -> bool:
    """Whether an MLflowServer says so of the spec it has now."""
    if server is None:
        return False
    status = server.get("status") or {}
    return status.get("observedGeneration") == server["metadata"]["generation"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or []
    )
