"""Prepares the test cluster for benchmarks: the operator of this checkout, namespaces, and shared stores."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster import operator_image, usage_lock
from tests.cluster.shell import StepError
from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube
from tests.e2e.server import Server, small_spec

from benchmarks import BENCH_LABEL, namespaces, stores
from benchmarks.waits import Waits

DELETION_TIMEOUT_SECONDS = 180.0
INSTALL_TIMEOUT_SECONDS = 150.0
"""Longer than Helm's own timeout."""

STORES_PURPOSE = "stores"


class BusyError(Exception):
    """Another run uses the cluster."""


class Lab(Waits):
    """A run of benchmarks. `rounds`: how often short measurements are repeated; `quick`: shorten the long ones.

    At the end of the context, the shared stores are deleted.
    """

    def __init__(self, rounds: int, quick: bool) -> None:
        super().__init__(Kube())
        self.rounds, self.quick = rounds, quick
        self._shared_stores: stores.Stores | None = None
        self._exit_stack = ExitStack()

    def __enter__(self) -> "Lab":
        self._exit_stack.enter_context(self._exclusive_lock())
        return self

    def __exit__(self, *error: object) -> None:
        self._exit_stack.close()

    @property
    def results_folder(self) -> Path:
        """Folder of the results. Quick runs have a separate folder, because their results are never documented."""
        folder = self.kube.settings.root / "out" / "bench"
        return folder / "quick" if self.quick else folder

    def build(self) -> str:
        """Return the tag of the operator's image, which contains a hash of its content."""
        return operator_image.reference(self.kube.settings, self.kube.shell).rsplit(":", 1)[1]

    def install(self) -> None:
        """Delete namespaces and platforms that an interrupted run left behind, and install the operator with Helm."""
        self.kube.kubectl("get", "--raw", "/readyz", within=20)
        found = self.kube.kubectl("get", "namespaces", "-l", BENCH_LABEL, "-o", "name").split()
        if found:
            names = ", ".join(name.partition("/")[2] for name in found)
            self.log(f"deleting namespaces of an interrupted run: {names}")
            self.kube.kubectl("delete", *found, "--ignore-not-found", "--wait=false")
            self.wait_for(
                "these namespaces are deleted",
                lambda: not self._benchmark_namespaces(),
                DELETION_TIMEOUT_SECONDS,
                0.5,
            )
        self.run(
            "Helm has installed the operator",
            lambda: operator_release.install(self.kube),
            INSTALL_TIMEOUT_SECONDS,
        )
        self.kube.kubectl(
            "delete", "mlflowplatforms", "-l", BENCH_LABEL, "--ignore-not-found", "--wait=false"
        )

    def _benchmark_namespaces(self) -> str:
        return self.kube.kubectl("get", "namespaces", "-l", BENCH_LABEL, "-o", "name")

    @contextmanager
    def _exclusive_lock(self) -> Iterator[None]:
        """Hold the cluster's usage lock exclusively. Raises BusyError if another run holds it."""
        with ExitStack() as claimed:
            try:
                claimed.enter_context(usage_lock.claim(self.kube.settings))
            except StepError as failure:
                raise BusyError(f"{failure}. {failure.hint}") from None
            yield

    @contextmanager
    def namespace(
        self, purpose: str, *, restricted: bool = True, wait_deleted: bool | None = None
    ) -> Iterator[Kube]:
        """Create a namespace, and delete it at the end of the context.

        `wait_deleted`: also wait until all its pods are gone, so that they do not use CPU during the next measurement.
        By default true, except in a quick run.
        """
        name = namespaces.name(purpose)
        self.kube.apply(namespaces.manifest(name, restricted))
        self.namespaces.add(name)
        wait = not self.quick if wait_deleted is None else wait_deleted
        try:
            yield self.kube.in_namespace(name)
        except Exception:
            # report the error of the figure, not an error of the cleanup
            try:
                self._delete(name, wait)
            except (CommandError, TimeoutError) as error:
                self.log(f"namespace {name} is not deleted: {error}")
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
            self.wait_for(
                f"namespace {name} is deleted",
                lambda: not self.kube.get("Namespace", name),
                DELETION_TIMEOUT_SECONDS,
            )

    def stores(self) -> stores.Stores:
        """Return the Postgres and MinIO that all figures of a run share. They are started on first use."""
        if self._shared_stores and not self._shared_stores.are_ready():
            self.log("the shared stores are no longer ready; starting new ones")
            self._shared_stores = None
        if self._shared_stores is None:
            kube = self._exit_stack.enter_context(self.namespace(STORES_PURPOSE))
            self._shared_stores = stores.start(self, kube)
        return self._shared_stores

    def migrated_database(self) -> str:
        """Return the name of a template database with the current schema. A real server creates it once per run."""
        shared = self.stores()
        if stores.TEMPLATE_DATABASE not in shared.databases:
            # a database with connections cannot be copied, so the server's pods must be gone
            with self.namespace("template", wait_deleted=True) as kube:
                kube.apply(*shared.secrets())
                spec = shared.spec(shared.create_database(stores.TEMPLATE_DATABASE))
                self.wait_ready(Server(kube).apply(small_spec(**spec)))
        return stores.TEMPLATE_DATABASE
