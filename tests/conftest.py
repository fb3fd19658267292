"""Options and markers of all test tiers, and the records for the report at the end of a run."""

import subprocess
from collections.abc import Generator

import hypothesis
import pytest

from tests.report import plugin

# On a busy machine any example may exceed hypothesis' deadline, and no test asserts a duration.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

LONG_RUNNING = "long_running"
_USAGE = f"{LONG_RUNNING}(reason=...)"

MAKE_TEST_IMAGES = ("python3", "-m", "tests.cluster", "test-images")
"""Command that exits with code 0 once docker and the registry have the images that only tests use (Toxiproxy,
PgBouncer, SeaweedFS and others). If another process is building them, it waits for that process."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--all`."""
    parser.addoption(
        "--all", action="store_true", dest=LONG_RUNNING, help="run tests that are marked long_running, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `long_running`, and the plugin that writes the records."""
    config.addinivalue_line("markers", f"{_USAGE}: `make test` skips it, `make test-all` (--all) runs it")
    plugin.register(config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Report a test that is marked long_running without a reason as a collection error."""
    report = yield
    items = (node for node in report.result or () if isinstance(node, pytest.Item))
    unexplained = [item.nodeid for item in items if not _explained(item)]
    if unexplained:
        report.outcome, report.result = "failed", []
        report.longrepr = "\n".join(f"{test} needs a reason: @pytest.mark.{_USAGE}" for test in unexplained)
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect long-running tests unless --all is given, and run tests that need `test_images` last."""
    items.sort(key=lambda item: "test_images" in getattr(item, "fixturenames", ()))
    long_running = [item for item in items if item.get_closest_marker(LONG_RUNNING)]
    if long_running and not config.getoption(LONG_RUNNING):
        config.hook.pytest_deselected(items=long_running)
        items[:] = [item for item in items if not item.get_closest_marker(LONG_RUNNING)]


@pytest.fixture(scope="session")
def test_images() -> None:
    """Waits for the images that only tests use. `make contracts` builds them while the first tests run."""
    done = subprocess.run(MAKE_TEST_IMAGES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _explained(item: pytest.Item) -> bool:
    """Whether each long_running marker of a test has `reason` as its only argument."""
    return all(
        not mark.args and mark.kwargs.keys() == {"reason"} and str(mark.kwargs["reason"]).strip()
        for mark in item.iter_markers(LONG_RUNNING)
    )
