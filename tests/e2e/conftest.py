"""Fixtures: the operator once per session, a namespace per test, and evidence of what failed.

The cluster itself is `make cluster`'s work; without it, all of this fails with a sentence that says so.
"""

import os
import re
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.e2e import evidence, release, run, versions
from tests.e2e import platform as platforms
from tests.e2e.kube import TEST_LABEL, Kube
from tests.e2e.platform import Platform
from tests.e2e.record import Record
from tests.e2e.release import complaints
from tests.e2e.server import Server, restarts, small

# a test should hear of a dead server at once, not after MLflow's own seven tries
os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="3", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
# it takes a variable away while another thread's request goes through all of them, which then fails
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
OUTCOME = pytest.StashKey[pytest.TestReport]()


def pytest_configure(config: pytest.Config) -> None:
    """Markers of this folder."""
    config.addinivalue_line("markers", "restarts_operator: the operator's pod may come back, or be another")
    config.addinivalue_line(
        "markers", "alone: no other test may run meanwhile; restarts_operator means this, too"
    )
    config.addinivalue_line(
        "markers", "long: begins before the others, lest it be the last one, alone, for minutes"
    )
    config.addinivalue_line("markers", "last: looks at the whole run, after all other tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with long ones first and the last ones last, and leaves the order of all others.

    Of those that run one by one, what needs images of earlier versions waits until these had time to be made.
    """
    for item in items:
        if item.get_closest_marker("restarts_operator"):
            item.add_marker(pytest.mark.alone)
    long = {item.path for item in items if item.get_closest_marker("long")}

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        waits = item.get_closest_marker("alone") is not None and "earlier" in getattr(
            item, "fixturenames", ()
        )
        return (item.get_closest_marker("last") is not None, waits, item.path not in long)

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begins no more where the run is out of time; those that look at all of it always run."""
    if run.out_of_time() and not item.get_closest_marker("last"):
        run.leave_out(item.nodeid)
        pytest.skip(f"left out: the run is out of time. {run.LONGER}")


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
def kube() -> Kube:
    """The cluster."""
    try:
        found = Kube()
        found.kubectl("get", "--raw", "/readyz", within=20)
    except Exception as error:
        pytest.exit(f"The test cluster does not answer. Run: make cluster\n{error}", returncode=1)
    if not run.begun():
        run.clear(found)
    return found


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
    release.install(kube)
    return run.now()


@pytest.fixture(autouse=True)
def watched(kube: Kube, operator: str, record: Record, request: pytest.FixtureRequest) -> Iterator[str]:
    """After every test: the operator has not complained, and has not died. Gives when the test began."""
    began = run.now()
    before = {pod["metadata"]["uid"]: restarts(pod) for pod in release.pods(kube)}
    yield began
    pods = release.pods(kube)
    found = complaints(record.operator_lines(began))
    assert not found, "the operator complained:\n" + "\n".join(found)
    if not request.node.get_closest_marker("restarts_operator"):
        assert {pod["metadata"]["uid"]: restarts(pod) for pod in pods} == before, "the operator restarted"


def _namespace(kube: Kube, prefix: str) -> Kube:
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", TEST_LABEL: "true"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return kube.within(name)


def _forget(kube: Kube) -> None:
    kube.kubectl("delete", "namespace", kube.namespace, "--wait=false", "--ignore-not-found")


def _keep_evidence(request: pytest.FixtureRequest, kube: Kube, since: str) -> None:
    report = request.node.stash.get(OUTCOME, None)
    if report is not None and report.failed:
        folder = kube.settings.root / "out" / re.sub(r"[^\w.-]+", "-", request.node.nodeid.split("/")[-1])
        evidence.keep(kube, folder / kube.namespace, since)


@pytest.fixture
def ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A namespace of this test's own, under restricted Pod Security."""
    own = _namespace(kube, "e2e")
    yield own
    _keep_evidence(request, own, watched)
    _forget(own)


@pytest.fixture
def other_ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A second one."""
    own = _namespace(kube, "e2e-other")
    yield own
    _keep_evidence(request, own, watched)
    _forget(own)


@pytest.fixture
def more_ns(kube: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Kube]]:
    """Makes as many more as a test asks for."""
    made: list[Kube] = []

    def make() -> Kube:
        made.append(_namespace(kube, "e2e-more"))
        return made[-1]

    yield make
    for own in made:
        _keep_evidence(request, own, watched)
    if made:
        # all at once: a call each would take longer than the test
        kube.kubectl("delete", "namespace", *(own.namespace for own in made), "--wait=false")


@pytest.fixture(scope="module")
def module_ns(kube: Kube, operator: str) -> Iterator[Kube]:
    """A namespace for all tests of a module. Those ask for `evidence_of_module`, too."""
    own = _namespace(kube, "e2e")
    yield own
    _forget(own)


@pytest.fixture
def evidence_of_module(module_ns: Kube, watched: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps what the module's namespace shows if the test fails."""
    yield
    _keep_evidence(request, module_ns, watched)


@pytest.fixture(scope="session")
def _shared(kube: Kube, operator: str) -> Iterator[Server]:
    own = _namespace(kube, "e2e-shared")
    yield Server(own).apply(small())
    _forget(own)


@pytest.fixture
def shared(_shared: Server, watched: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One small server, all embedded, for tests that leave it as they find it."""
    yield _shared.ready()
    _keep_evidence(request, _shared.kube, watched)


@pytest.fixture(scope="session")
def _platform(kube: Kube, operator: str) -> Iterator[Platform]:
    own = _namespace(kube, "e2e-platform")
    yield platforms.start(own)
    _forget(own)


@pytest.fixture(scope="session")
def earlier(kube: Kube) -> dict[str, str]:
    """Images of earlier versions of MLflow, by version."""
    return versions.images(kube)


@pytest.fixture
def platform(_platform: Platform, watched: str, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """One Postgres and one MinIO with their administrators, for tests that leave them as they find them."""
    yield _platform
    _keep_evidence(request, _platform.kube, watched)
