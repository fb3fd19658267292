"""Fixtures: the operator once per session, a namespace per test, and evidence of what failed.

The cluster itself is `make cluster`'s work; without it, all of this fails with a sentence that says so.
"""

import os
import re
from collections.abc import Callable, Generator, Iterator

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]

from tests.cluster import usage_lock
from tests.e2e import evidence, namespaces, operator_release, run, versions
from tests.e2e import shared_stores as platforms
from tests.e2e.groups import SHARED, GroupScheduling, group
from tests.e2e.kube import Kube, Object
from tests.e2e.operator_release import complaints
from tests.e2e.secret_scan import Record
from tests.e2e.server import Server, restarts, small
from tests.e2e.shared_stores import Platform

# a test should hear of a dead server at once, not after MLflow's own seven tries
os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="3", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
# it takes a variable away while another thread's request goes through all of them, which then fails
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
OUTCOME = pytest.StashKey[pytest.TestReport]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers of this folder."""
    for line in (
        "restarts_operator: the operator's pod may restart or be replaced; implies `alone`",
        "alone: no other test may run at the same time",
        "start_early: takes minutes, so it starts before the others and does not end up last on one processor",
        "second_images: needs an image of the second set, waits for that, and runs late",
        "last: judges the whole run, after all other tests",
    ):
        config.addinivalue_line("markers", line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Keeps the tests of a group on one worker."""
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests: those that take long first, with all of their group, and those that need to wait last."""
    for item in items:
        if item.get_closest_marker("restarts_operator"):
            item.add_marker(pytest.mark.alone)
        if "shared" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("alone"):
            assert _group(item) == SHARED, (
                f'{item.path} uses the shared server: write GROUP = "{SHARED}" there'
            )
    groups = {_group(item) for item in items if item.get_closest_marker("start_early")} - {None}

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        early = item.get_closest_marker("start_early") is not None or _group(item) in groups
        last, late = (item.get_closest_marker(name) is not None for name in ("last", "second_images"))
        return (last, late, not early)

    items.sort(key=place)


def _group(item: pytest.Item) -> str | None:
    return group(item.nodeid.partition("::")[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets fixtures know whether their test failed."""
    report = yield
    if report.when == "call" or report.failed:
        item.stash[OUTCOME] = report
    return report


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The cluster."""
    try:
        found = Kube()
        found.kubectl("get", "--raw", "/readyz", within=20)
    except Exception as error:
        pytest.exit(f"The test cluster does not answer. Run: make cluster\n{error}", returncode=1)
    if run.begun():
        yield found
        return
    # Shared, because each worker of pytest-xdist is a session of its own.
    with usage_lock.hold(found.settings, shared=True):
        run.clear(found)
        yield found
        namespaces.delete_shared(found)


@pytest.fixture(scope="session")
def record(kube: Kube) -> Iterator[Record]:
    """All that is let out from now on."""
    kept = run.recorded() or Record(kube)
    if run.begun():
        yield kept
        return
    kept.start()
    yield kept
    kept.stop()


@pytest.fixture(scope="session")
def operator(kube: Kube, record: Record) -> str:
    """The operator, installed by Helm from this checkout. Gives since when: another may have run before."""
    since = run.begun()
    if since:
        return since
    operator_release.install(kube)
    return run.now()


@pytest.fixture(autouse=True)
def watched(kube: Kube, operator: str, record: Record, request: pytest.FixtureRequest) -> Iterator[str]:
    """After every test: the operator has not complained, and has not died. Gives when the test began."""
    began = run.now()
    before = {pod["metadata"]["uid"]: restarts(pod) for pod in operator_release.pods(kube)}
    yield began
    pods = operator_release.pods(kube)
    found = complaints(record.operator_lines(began))
    assert not found, "the operator complained:\n" + "\n".join(found)
    if not request.node.get_closest_marker("restarts_operator"):
        assert {pod["metadata"]["uid"]: restarts(pod) for pod in pods} == before, "the operator restarted"


def _keep_evidence(request: pytest.FixtureRequest, kube: Kube, since: str) -> None:
    report = request.node.stash.get(OUTCOME, None)
    if report is not None and report.failed:
        folder = kube.settings.root / "out" / re.sub(r"[^\w.-]+", "-", request.node.nodeid.split("/")[-1])
        evidence.keep(kube, folder / kube.namespace, since)


@pytest.fixture
def ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A namespace of this test's own, under restricted Pod Security."""
    own = namespaces.create_namespace(kube, "e2e")
    yield own
    _keep_evidence(request, own, watched)
    namespaces.delete_namespaces(kube, own.namespace)


@pytest.fixture
def other_ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A second one."""
    own = namespaces.create_namespace(kube, "e2e-other")
    yield own
    _keep_evidence(request, own, watched)
    namespaces.delete_namespaces(kube, own.namespace)


@pytest.fixture
def more_ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Kube]]:
    """Makes as many more as a test asks for."""
    made: list[Kube] = []

    def make() -> Kube:
        made.append(namespaces.create_namespace(kube, "e2e-more"))
        return made[-1]

    yield make
    for own in made:
        _keep_evidence(request, own, watched)
    namespaces.delete_namespaces(kube, *(own.namespace for own in made))


@pytest.fixture(scope="module")
def module_ns(kube: Kube, operator: str) -> Iterator[Kube]:
    """A namespace for all tests of a module, which ask for `evidence_of_module`, too, and are one group."""
    own = namespaces.create_namespace(kube, "e2e")
    yield own
    namespaces.delete_namespaces(kube, own.namespace)


@pytest.fixture
def evidence_of_module(module_ns: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps what the module's namespace shows if the test fails."""
    yield
    _keep_evidence(request, module_ns, watched)


@pytest.fixture(scope="session")
def _shared(kube: Kube, operator: str) -> Server:
    def create(own: Kube) -> Object:
        Server(own).apply(small())
        return {}

    return Server(namespaces.shared(kube, "shared", create)[0])


@pytest.fixture
def shared(_shared: Server, watched: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One small server with embedded stores, for tests that leave it as they find it."""
    yield _shared.ready()
    _keep_evidence(request, _shared.kube, watched)


@pytest.fixture(scope="session")
def _platform(kube: Kube, operator: str) -> Platform:
    own, facts = namespaces.shared(kube, "platform", lambda own: platforms.start(own).facts())
    return platforms.connect(own, facts)


@pytest.fixture
def platform(_platform: Platform, watched: str, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """One Postgres and one MinIO with their administrators, which several tests use at the same time."""
    yield _platform
    _keep_evidence(request, _platform.kube, watched)


@pytest.fixture(scope="session")
def _second_images(kube: Kube) -> None:
    versions.ensure(kube)


@pytest.fixture(autouse=True)
def _images(request: pytest.FixtureRequest) -> None:
    """Waits for the second image set where a test's marker says that it needs it."""
    if request.node.get_closest_marker("second_images"):
        request.getfixturevalue("_second_images")


@pytest.fixture(scope="session")
def earlier(kube: Kube) -> dict[str, str]:
    """Images of earlier versions of MLflow, by version. Tests that use it are marked `second_images`."""
    return versions.images(kube)
