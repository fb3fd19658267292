"""Options and markers of all tiers, and the records for the report at the end of a run."""

import subprocess
from collections.abc import Generator

import hypothesis
import pytest

from tests.report import plugin

# On a busy machine any example may take longer than hypothesis' limit, and a test never asserts a time.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

LONG_RUNNING = "long_running"
_USAGE = f"{LONG_RUNNING}(reason=...)"

MAKE_TEST_IMAGES = ("python3", "-m", "tests.cluster", "test-images")
"""Command that exits with code 0 once docker and the registry hold the images that only tests use: Toxiproxy,
PgBouncer, SeaweedFS and others. If another process is building them, it waits for that."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all`."""
    parser.addoption(
        "--all", action="store_true", dest=LONG_RUNNING, help="run tests that are marked long_running, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the records."""
    config.addinivalue_line(
        "markers", f"{_USAGE}: `make test` leaves it out, `make test-all` (--all) runs it"
    )
    plugin.register(config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Reports a test that is marked long_running without a reason as an error of collection."""
    report = yield
    items = (node for node in report.result or () if isinstance(node, pytest.Item))
    unexplained = [item.nodeid for item in items if not _explained(item)]
    if unexplained:
        report.outcome, report.result = "failed", []
        report.longrepr = "\n".join(f"{test} needs a reason: @pytest.mark.{_USAGE}" for test in unexplained)
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects long-running tests unless --all is given, and puts those last that need `test_images`."""
    items.sort(key=lambda item: "test_images" in getattr(item, "fixturenames", ()))
    left_out = [item for item in items if item.get_closest_marker(LONG_RUNNING)]
    if left_out and not config.getoption(LONG_RUNNING):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(LONG_RUNNING)]


@pytest.fixture(scope="session")
def test_images() -> None:
    """Waits for the images that only tests use. `make contracts` builds them beside the first tests."""
    done = subprocess.run(MAKE_TEST_IMAGES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _explained(item: pytest.Item) -> bool:
    """Whether each of its markers has a reason, by name and as the only argument."""
    return all(
        not mark.args and mark.kwargs.keys() == {"reason"} and str(mark.kwargs["reason"]).strip()
        for mark in item.iter_markers(LONG_RUNNING)
    )
