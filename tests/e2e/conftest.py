"""Fixtures: the operator once per session, a namespace per test, and evidence of failed tests.

`make cluster` creates the cluster; without it, pytest exits with a message that says so.
"""

import os
import re
import subprocess
import warnings
from collections.abc import Callable, Generator, Iterator

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]

from tests.cluster import usage_lock
from tests.e2e import evidence, namespaces, operator_release, run, shared_stores, versions
from tests.e2e.groups import SHARED, GroupScheduling, group
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.operator_release import error_lines, lease_losses
from tests.e2e.secret_scan import Record
from tests.e2e.server import Server, restart_count, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.tenants import Tenancy

# A test should fail at once if the server is down, not after MLflow's default of seven retries.
os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="3", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
# MLflow's telemetry deletes an environment variable while another thread's request iterates over all of them, and that
# request then fails.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
REPORT_KEY = pytest.StashKey[pytest.TestReport]()
READYZ_ATTEMPTS = 3
READYZ_TIMEOUT_SECONDS = 30.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this folder."""
    for line in (
        "restarts_operator: the operator's pod may restart or be replaced; implies `alone`",
        "alone: must not run in parallel with another test",
        "start_early: takes minutes, so it starts before the others and does not end up last on one CPU",
        "second_images: needs an image of the second set, waits for it, and runs late",
        "last: checks the whole run, after all other tests",
    ):
        config.addinivalue_line("markers", line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Keep the tests of a group on one worker."""
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests: long ones first, together with their whole group; tests that must wait for images last."""
    for item in items:
        if item.get_closest_marker("restarts_operator"):
            item.add_marker(pytest.mark.alone)
        if "shared_server" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("alone"):
            assert _group(item) == SHARED, (
                f'{item.path} uses the shared server: write GROUP = "{SHARED}" there'
            )
    early_groups = {_group(item) for item in items if item.get_closest_marker("start_early")} - {None}

    def sort_key(item: pytest.Item) -> tuple[bool, bool, bool]:
        early = item.get_closest_marker("start_early") is not None or _group(item) in early_groups
        last, late = (item.get_closest_marker(name) is not None for name in ("last", "second_images"))
        return (last, late, not early)

    items.sort(key=sort_key)


def _group(item: pytest.Item) -> str | None:
    return group(item.nodeid.partition("::")[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Store the test's report, so that fixtures know whether the test failed."""
    report = yield
    if report.when == "call" or report.failed:
        item.stash[REPORT_KEY] = report
    return report


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """Client of the test cluster."""
    try:
        client = Kube()
        _check_readiness(client)
    except Exception as error:
        pytest.exit(f"The test cluster is not reachable. Run: make cluster\n{error}", returncode=1)
    if run.run_started_at():
        yield client
        return
    # A shared lock, because each worker of pytest-xdist is its own session.
    with usage_lock.hold(client.settings, shared=True):
        run.delete_leftovers(client)
        yield client
        namespaces.delete_shared(client)


def _check_readiness(kube: Kube) -> None:
    """Read /readyz of the API server. A busy one may not answer in time, so only the last attempt's error is raised."""
    for attempt in range(1, READYZ_ATTEMPTS + 1):
        try:
            kube.kubectl("get", "--raw", "/readyz", within=READYZ_TIMEOUT_SECONDS)
        except (CommandError, subprocess.TimeoutExpired):
            if attempt == READYZ_ATTEMPTS:
                raise
        else:
            return


@pytest.fixture(scope="session")
def record(kube: Kube) -> Iterator[Record]:
    """Record of every log, event, object and command line of the run."""
    current = run.current_record() or Record(kube)
    if run.run_started_at():
        yield current
        return
    current.start()
    yield current
    current.stop()


@pytest.fixture(scope="session")
def operator(kube: Kube, record: Record) -> str:
    """The operator, installed by Helm from this checkout. Returns the time: another operator may have run before it."""
    since = run.run_started_at()
    if since:
        return since
    operator_release.install(kube)
    return run.current_time()


@pytest.fixture(autouse=True)
def started_at(kube: Kube, operator: str, record: Record, request: pytest.FixtureRequest) -> Iterator[str]:
    """When the test started. After every test: the operator has logged no error and has not restarted.

    A restart is only a warning if the API server did not answer for so long that the operator lost its Lease: then the
    operator must exit.
    """
    start, before = run.current_time(), _operator_restarts(kube)
    yield start
    after, lines = _operator_restarts(kube), record.operator_lines(start)
    errors = error_lines(lines)
    assert not errors, "the operator logged errors:\n" + "\n".join(errors)
    if after != before and not request.node.get_closest_marker("restarts_operator"):
        restarts = sum(after.values()) - sum(before.values())
        assert after.keys() == before.keys(), "the operator's pod was replaced"
        assert restarts <= len(lease_losses(lines)), "the operator restarted"
        warnings.warn(
            "the operator lost its Lease and restarted: the API server did not answer", stacklevel=1
        )


def _operator_restarts(kube: Kube) -> dict[str, int]:
    return {pod["metadata"]["uid"]: restart_count(pod) for pod in operator_release.pods(kube)}


def _save_evidence(request: pytest.FixtureRequest, kube: Kube, since: str) -> None:
    report = request.node.stash.get(REPORT_KEY, None)
    if report is not None and report.failed:
        folder = kube.settings.root / "out" / re.sub(r"[^\w.-]+", "-", request.node.nodeid.split("/")[-1])
        evidence.save(kube, folder / kube.namespace, since)


@pytest.fixture
def ns(kube: Kube, started_at: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """The test's own namespace, with the restricted Pod Security level."""
    namespaced_kube = namespaces.create_namespace(kube, "e2e")
    yield namespaced_kube
    _save_evidence(request, namespaced_kube, started_at)
    namespaces.delete_namespaces(kube, namespaced_kube.namespace)


@pytest.fixture
def other_ns(kube: Kube, started_at: str, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A second namespace of the test."""
    namespaced_kube = namespaces.create_namespace(kube, "e2e-other")
    yield namespaced_kube
    _save_evidence(request, namespaced_kube, started_at)
    namespaces.delete_namespaces(kube, namespaced_kube.namespace)


@pytest.fixture
def create_ns(kube: Kube, started_at: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Kube]]:
    """Function that creates further namespaces for the test."""
    created: list[Kube] = []

    def create() -> Kube:
        created.append(namespaces.create_namespace(kube, "e2e-more"))
        return created[-1]

    yield create
    for namespaced_kube in created:
        _save_evidence(request, namespaced_kube, started_at)
    namespaces.delete_namespaces(kube, *(namespaced_kube.namespace for namespaced_kube in created))


@pytest.fixture(scope="module")
def module_ns(kube: Kube, operator: str) -> Iterator[Kube]:
    """A namespace for all tests of a module. The tests must also use `module_evidence` and belong to one group."""
    namespaced_kube = namespaces.create_namespace(kube, "e2e")
    yield namespaced_kube
    namespaces.delete_namespaces(kube, namespaced_kube.namespace)


@pytest.fixture
def module_evidence(module_ns: Kube, started_at: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Saves evidence of the module's namespace if the test fails."""
    yield
    _save_evidence(request, module_ns, started_at)


@pytest.fixture(scope="session")
def _shared_server(kube: Kube, operator: str) -> Server:
    def create(namespaced_kube: Kube) -> Object:
        Server(namespaced_kube).apply(small_spec())
        return {}

    return Server(namespaces.shared_namespace(kube, "shared", create)[0])


@pytest.fixture
def shared_server(
    _shared_server: Server, started_at: str, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """One small server with embedded stores, for tests that leave it unchanged."""
    yield _shared_server.wait_ready()
    _save_evidence(request, _shared_server.kube, started_at)


@pytest.fixture(scope="session")
def _platform(kube: Kube, operator: str) -> Platform:
    namespaced_kube, facts = namespaces.shared_namespace(
        kube, "platform", lambda namespaced_kube: shared_stores.start(namespaced_kube).facts()
    )
    return shared_stores.connect(namespaced_kube, facts)


@pytest.fixture
def platform(_platform: Platform, started_at: str, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """One Postgres and one MinIO with their administrators, which several tests use in parallel."""
    yield _platform
    _save_evidence(request, _platform.kube, started_at)


@pytest.fixture(scope="module")
def _tenancy(kube: Kube, _platform: Platform) -> Iterator[Tenancy]:
    created = Tenancy(kube, _platform)
    yield created
    created.delete()


@pytest.fixture
def tenancy(_tenancy: Tenancy, started_at: str, request: pytest.FixtureRequest) -> Iterator[Tenancy]:
    """MLflowPlatforms and tenants that the tests of a module share. The tests must belong to one group."""
    yield _tenancy
    for tenant in _tenancy.tenants:
        _save_evidence(request, _tenancy.kube.in_namespace(tenant.namespace), started_at)


@pytest.fixture(scope="session")
def _second_images(kube: Kube) -> None:
    versions.ensure(kube)


@pytest.fixture(autouse=True)
def _images(request: pytest.FixtureRequest) -> None:
    """Waits for the second image set if the test is marked `second_images`."""
    if request.node.get_closest_marker("second_images"):
        request.getfixturevalue("_second_images")


@pytest.fixture(scope="session")
def earlier_images(kube: Kube) -> dict[str, str]:
    """Images of earlier versions of MLflow, by version. Tests that use this must be marked `second_images`."""
    return versions.images(kube)
