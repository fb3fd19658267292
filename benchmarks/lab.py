"""Prepares the test cluster for benchmarks: the operator of this checkout, namespaces, and the stores they share."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster import operator_image, usage_lock
from tests.cluster.shell import Failed
from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube
from tests.e2e.server import Server, small

from benchmarks import BENCH_LABEL, namespaces, stores
from benchmarks.waits import Waits

GONE = 180.0
INSTALLED = 150.0
"""Helm itself gives up a little earlier."""

OWN_STORES = "stores"


class BusyError(Exception):
    """Another run uses the cluster."""


class Lab(Waits):
    """One run. `rounds` is how often a figure is measured that takes seconds; `quick` shortens the longer ones.

    A context: when it ends, the shared stores are deleted.
    """

    def __init__(self, rounds: int, quick: bool) -> None:
        super().__init__(Kube())
        self.rounds, self.quick = rounds, quick
        self._shared: stores.Stores | None = None
        self._exit = ExitStack()

    def __enter__(self) -> "Lab":
        self._exit.enter_context(self._alone())
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    @property
    def out(self) -> Path:
        """Folder of the results. Those of a quick run are kept apart: they never become the documented figures."""
        folder = self.kube.settings.root / "out" / "bench"
        return folder / "quick" if self.quick else folder

    def build(self) -> str:
        """The operator's image, identified by its content."""
        return operator_image.reference(self.kube.settings, self.kube.shell).rsplit(":", 1)[1]

    def install(self) -> None:
        """Deletes namespaces that an interrupted run left behind, and installs the operator with Helm."""
        self.kube.kubectl("get", "--raw", "/readyz", within=20)
        found = self.kube.kubectl("get", "namespaces", "-l", BENCH_LABEL, "-o", "name").split()
        if found:
            names = ", ".join(name.partition("/")[2] for name in found)
            self.say(f"deleting namespaces of an interrupted run: {names}")
            self.kube.kubectl("delete", *found, "--ignore-not-found", "--wait=false")
            self.until("these namespaces are deleted", lambda: not self._labelled(), GONE, 0.5)
        self.run("Helm has installed the operator", lambda: operator_release.install(self.kube), INSTALLED)

    def _labelled(self) -> str:
        return self.kube.kubectl("get", "namespaces", "-l", BENCH_LABEL, "-o", "name")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock of all that use this cluster. Raises BusyError if another run holds it."""
        with ExitStack() as claimed:
            try:
                claimed.enter_context(usage_lock.claim(self.kube.settings))
            except Failed as failure:
                raise BusyError(f"{failure}. {failure.hint}") from None
            yield

    @contextmanager
    def namespace(
        self, purpose: str, *, restricted: bool = True, wait_deleted: bool | None = None
    ) -> Iterator[Kube]:
        """A new namespace, which is deleted when the context ends.

        `wait_deleted`: the context ends when all its pods are gone, so that they take no CPU from what is measured
        next. By default true, except in a quick run.
        """
        name = namespaces.name(purpose)
        self.kube.apply(namespaces.manifest(name, restricted))
        self.namespaces.add(name)
        wait = not self.quick if wait_deleted is None else wait_deleted
        try:
            yield self.kube.within(name)
        except Exception:
            # the error that ended the figure is reported, not one of the clean-up
            try:
                self._delete(name, wait)
            except (CommandError, TimeoutError) as error:
                self.say(f"namespace {name} is not deleted: {error}")
            raise
        except BaseException:
            self._delete(name, wait=False)
            raise
        else:
            self._delete(name, wait)

    def _delete(self, name: str, wait: bool) -> None:
        self.namespaces.discard(name)
        self.kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
        if wait:
            self.until(f"namespace {name} is deleted", lambda: not self.kube.get("Namespace", name), GONE)

    def stores(self) -> stores.Stores:
        """The Postgres and the MinIO that all figures of a run share; started on first use."""
        if self._shared and not self._shared.ready():
            self.say("the shared stores are not ready any more: starting new ones")
            self._shared = None
        if self._shared is None:
            kube = self._exit.enter_context(self.namespace(OWN_STORES))
            self._shared = stores.start(self, kube)
        return self._shared

    def migrated_database(self) -> str:
        """Name of a database with the current schema, to be copied. A real server creates it, once in a run."""
        shared = self.stores()
        if stores.TEMPLATE not in shared.databases:
            # a database with connections cannot be copied, so the server's pods must be gone
            with self.namespace("template", wait_deleted=True) as kube:
                kube.apply(*shared.secrets())
                spec = shared.spec(shared.database(stores.TEMPLATE))
                self.ready(Server(kube).apply(small(**spec)))
        return stores.TEMPLATE
