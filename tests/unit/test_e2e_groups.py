"""Grouping of the end-to-end tests that must not run in parallel."""

from pathlib import Path

import pytest

from tests.cluster import settings
from tests.e2e.groups import SHARED, GroupScheduling, group

MODULES = sorted((settings.ROOT / "tests" / "e2e").glob("test_*.py"))


@pytest.fixture
def scheduling() -> GroupScheduling:
    """A scheduler without workers."""
    return GroupScheduling.__new__(GroupScheduling)


def test_tests_of_one_group_have_the_same_scope(scheduling: GroupScheduling) -> None:
    """This also applies to tests of different modules."""
    first = scheduling._split_scope("tests/e2e/test_allowed_hosts.py::test_one")
    second = scheduling._split_scope("tests/e2e/test_render.py::test_two[x]")
    assert first == second == SHARED


def test_test_without_a_group_has_its_own_scope(scheduling: GroupScheduling) -> None:
    """Any free worker can run it."""
    tests = ["tests/e2e/test_images.py::test_one", "tests/e2e/test_images.py::test_two"]
    assert [scheduling._split_scope(test) for test in tests] == tests


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_modules_that_share_a_server_belong_to_a_group(module: Path) -> None:
    """Without a group, the tests that use a module-scoped or the shared server could run in different workers."""
    source = module.read_text()
    shares_server = "module_ns: Kube" in source or "shared_server: Server" in source
    runs_alone = "pytest.mark.alone" in source
    assert not shares_server or runs_alone or group(str(module.relative_to(settings.ROOT)))
