"""What a user sees of `make cluster`: each step, its time, and what to do when one fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import published, settings
from tests.cluster.progress import Step, walk
from tests.cluster.shell import Shell


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """A shell that logs where the test can look."""
    return Shell(tmp_path / "log")


def test_a_failed_step_prints_the_end_of_its_log_and_what_to_do(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason without opening a file, then the way on; later steps are not begun."""
    script = "seq 1 100; echo the reason >&2; exit 3"
    broken = Step("broken", lambda: False, lambda: sh.run("sh", "-c", script), "Buy a new one.")
    later = Step("later", lambda: pytest.fail("begun"), lambda: None)
    assert not walk([broken, later], sh, tmp_path / "logs", 0)
    shown = capsys.readouterr().out
    assert "| the reason" in shown
    assert "| 100" in shown
    assert "| 1\n" not in shown
    assert "exit code 3" in shown
    assert "Buy a new one." in shown
    assert str(tmp_path / "logs" / "broken.log") in shown


def test_what_is_there_is_not_made_again(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run asks and goes on."""
    assert walk([Step("whole", lambda: True, lambda: pytest.fail("made"))], sh, tmp_path, 0)
    assert "there" in capsys.readouterr().out


def test_a_step_is_asked_for_when_those_before_it_are_done(sh: Shell, tmp_path: Path) -> None:
    """What there is to build is known only when the list of it has been built."""
    done: list[str] = []

    def steps() -> Iterator[Step]:
        yield Step("first", lambda: False, lambda: done.append("first"))
        assert done == ["first"]

    assert walk(steps(), sh, tmp_path, 0)


def test_a_command_that_is_missing_is_a_no(sh: Shell) -> None:
    """A check must never end the run."""
    assert not sh.ok("no-such-program")


def test_a_registry_that_does_not_answer_is_named() -> None:
    """The name under .invalid never resolves: that is how images come to be built here."""
    assert published.silent_hosts(["registry.invalid/a:1", "registry.invalid/b:2"]) == ["registry.invalid"]


def test_an_unknown_choice_of_images_is_refused_with_the_known_ones() -> None:
    """IMAGES is typed by hand."""
    with pytest.raises(ValueError, match=r"IMAGES=push is not known.*auto, pull, build"):
        settings.load({"HOME": "/nowhere", "IMAGES": "push"})
