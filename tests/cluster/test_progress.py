"""What a user sees of `make cluster`: each step, its time, and what to do when one fails."""

import threading
from pathlib import Path

import pytest

from tests.cluster import published_images, settings
from tests.cluster.problems import diagnose
from tests.cluster.progress import Step, run_steps
from tests.cluster.shell import Shell


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """A shell that logs into the test's folder."""
    return Shell(tmp_path / "log")


def _never(_: Shell) -> bool:
    return False


def _nothing(_: Shell) -> None:
    return None


def _forbidden(_: Shell) -> None:
    pytest.fail("this step must not run")


def test_failed_step_prints_the_end_of_its_log_and_what_to_do(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user reads the cause without opening a file. Steps that need the failed one do not run."""
    script = "seq 1 100; echo the reason >&2; exit 3"
    broken = Step("broken", _never, lambda sh: sh.run("sh", "-c", script), hint="Buy a new one.")
    later = Step("later", _never, _forbidden, needs=("broken",))
    assert not run_steps([broken, later], sh, tmp_path / "logs", 0)
    shown = capsys.readouterr().out
    assert "| the reason" in shown
    assert "| 100" in shown
    assert "| 1\n" not in shown
    assert "exited with code 3" in shown
    assert "Buy a new one." in shown
    assert str(tmp_path / "logs" / "broken.log") in shown


def test_error_of_the_system_is_explained_without_a_traceback(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a program that is not installed, or a disk that is full while the step writes a file."""
    missing = Step("absent", _never, lambda sh: sh.run("no-such-program-of-ours"), hint="Install it.")
    assert not run_steps([missing], sh, tmp_path / "logs", 0)
    shown = capsys.readouterr().out
    assert "No such file or directory: 'no-such-program-of-ours'" in shown
    assert "Install it." in shown
    assert "Traceback" not in shown


def test_step_that_is_done_does_not_run(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run only checks."""
    assert run_steps([Step("complete", lambda _: True, _forbidden)], sh, tmp_path, 0)
    assert "up to date" in capsys.readouterr().out


def test_step_waits_for_the_steps_that_it_needs(sh: Shell, tmp_path: Path) -> None:
    """Whatever their order in the list."""
    order: list[str] = []
    steps = [
        Step("third", _never, lambda _: order.append("third"), needs=("second", "first")),
        Step("second", _never, lambda _: order.append("second"), needs=("first",)),
        Step("first", _never, lambda _: order.append("first"), needs=("not in this run",)),
    ]
    assert run_steps(steps, sh, tmp_path, 0)
    assert order == ["first", "second", "third"]


def test_independent_steps_run_at_the_same_time(sh: Shell, tmp_path: Path) -> None:
    """Each of the two ends only if the other one has begun."""
    both = threading.Barrier(2, timeout=30)

    def meet(_: Shell) -> None:
        both.wait()

    steps = [Step(name, _never, meet) for name in ("one", "other")]
    assert run_steps(steps, sh, tmp_path, 0)


def test_steps_have_separate_logs(sh: Shell, tmp_path: Path) -> None:
    """Steps run side by side; their output is not mixed."""

    def echo(name: str) -> Step:
        return Step(name, _never, lambda sh: sh.run("echo", name))

    steps = [echo("one"), echo("other")]
    assert run_steps(steps, sh, tmp_path, 0)
    assert (tmp_path / "one.log").read_text() == "$ echo one\none\n"
    assert (tmp_path / "other.log").read_text() == "$ echo other\nother\n"


def test_running_steps_are_stopped_when_another_one_fails(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user gets the reason at once, not after minutes of compilation."""
    begun = threading.Event()

    def long(sh: Shell) -> None:
        begun.set()
        sh.run("sleep", "600")

    def fail(sh: Shell) -> None:
        begun.wait(30)
        sh.run("false")

    assert not run_steps([Step("long", _never, long), Step("broken", _never, fail)], sh, tmp_path, 0)
    shown = capsys.readouterr().out
    assert "stopped" in shown
    assert "broken: `false ...` exited with code 1." in shown


def test_steps_that_wait_for_each_other_are_an_error(sh: Shell, tmp_path: Path) -> None:
    """A mistake in the plan does not hang."""
    steps = [Step("a", _never, _nothing, needs=("b",)), Step("b", _never, _nothing, needs=("a",))]
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        run_steps(steps, sh, tmp_path, 0)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("write /tmp/go-build/x.a: no space left on device", "The disk is full."),
        ("curl: (6) Could not resolve host: pypi.test", "package index cannot be reached (pypi.test)"),
        ("dial tcp: lookup proxy.test on 1.1.1.1:53: no such host", "cannot be reached (proxy.test)"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "package index cannot be reached"),
        (
            "W: Failed to fetch http://deb.test/debian/dists/x  Temporary failure",
            "cannot be reached (deb.test)",
        ),
        ("ERROR: No matching distribution found for uv==9.9.9", "cannot be reached (uv==9.9.9)"),
        (
            'Get "https://quay.test/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)',
            "cannot be reached (quay.test)",
        ),
        ("the local registry does not answer: [Errno 111]", "docker logs mlflow-operator-registry"),
        ("dial tcp: lookup mlflow-operator-registry: no such host", "docker logs mlflow-operator-registry"),
    ],
)
def test_known_problem_is_one_line_with_the_next_action(log: str, words: str) -> None:
    """A full disk, an index or a registry that does not answer."""
    found = diagnose(f"$ some command\n{log}\n")
    assert found is not None
    assert words in found
    assert "\n" not in found
    assert "run the same command again" in found


def test_other_problems_are_shown_as_they_are() -> None:
    """A compiler's error is not mistaken for a network problem."""
    assert diagnose("main.go:7:2: undefined: thing") is None


def test_missing_command_is_a_no(sh: Shell) -> None:
    """A check never ends the run."""
    assert not sh.ok("no-such-program")


def test_registry_that_does_not_answer_is_named() -> None:
    """Names under .invalid never resolve. This is how images come to be built here."""
    assert published_images.silent_hosts(["registry.invalid/a:1", "registry.invalid/b:2"]) == [
        "registry.invalid"
    ]


def test_unknown_choice_of_images_is_refused_with_the_known_ones() -> None:
    """IMAGES is typed by hand."""
    with pytest.raises(ValueError, match=r"IMAGES=push is not known.*auto, pull, build"):
        settings.load({"HOME": "/nowhere", "IMAGES": "push"})
