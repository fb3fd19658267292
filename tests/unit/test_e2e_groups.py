"""Which end-to-end tests may run at the same time."""

from pathlib import Path

import pytest

from tests.cluster import settings
from tests.e2e.groups import SHARED, GroupScheduling, group

MODULES = sorted((settings.ROOT / "tests" / "e2e").glob("test_*.py"))


@pytest.fixture
def scheduling() -> GroupScheduling:
    """One that has no workers to schedule for."""
    return GroupScheduling.__new__(GroupScheduling)


def test_tests_of_one_group_are_one_unit_of_work(scheduling: GroupScheduling) -> None:
    """Also those of different modules."""
    first = scheduling._split_scope("tests/e2e/test_allowed_hosts.py::test_one")
    second = scheduling._split_scope("tests/e2e/test_render.py::test_two[x]")
    assert first == second == SHARED


def test_a_test_without_a_group_is_a_unit_of_its_own(scheduling: GroupScheduling) -> None:
    """So that a worker that is free can take it."""
    tests = ["tests/e2e/test_images.py::test_one", "tests/e2e/test_images.py::test_two"]
    assert [scheduling._split_scope(test) for test in tests] == tests


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_modules_that_share_a_server_name_their_group(module: Path) -> None:
    """A module-scoped server, or the shared one: two workers would each get a part of its tests."""
    source = module.read_text()
    shares = "module_ns: Kube" in source or "shared: Server" in source
    alone = "pytest.mark.alone" in source
    assert not shares or alone or group(str(module.relative_to(settings.ROOT)))
