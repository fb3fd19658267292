"""Output of `make cluster`: each step with its duration, and what to do if a step fails."""

import threading
from pathlib import Path

import pytest

from tests.cluster import published_images, settings
from tests.cluster.problems import diagnose
from tests.cluster.progress import Step, run_steps
from tests.cluster.shell import Shell


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """A shell with a log file in the test's folder."""
    return Shell(tmp_path / "log")


def _never(_: Shell) -> bool:
    return False


def _nothing(_: Shell) -> None:
    return None


def _forbidden(_: Shell) -> None:
    pytest.fail("this step must not run")


def test_failed_step_prints_log_tail_and_hint(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user sees the cause without opening a file. Steps that need the failed step do not run."""
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


def test_os_error_is_printed_without_a_traceback(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example for a program that is not installed, or a disk that is full while a step writes a file."""
    missing = Step("absent", _never, lambda sh: sh.run("no-such-program-of-ours"), hint="Install it.")
    assert not run_steps([missing], sh, tmp_path / "logs", 0)
    shown = capsys.readouterr().out
    assert "No such file or directory: 'no-such-program-of-ours'" in shown
    assert "Install it." in shown
    assert "Traceback" not in shown


def test_done_step_does_not_run(sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run only checks the step."""
    assert run_steps([Step("complete", lambda _: True, _forbidden)], sh, tmp_path, 0)
    assert "up to date" in capsys.readouterr().out


def test_step_waits_for_the_steps_that_it_needs(sh: Shell, tmp_path: Path) -> None:
    """In any order of the list."""
    order: list[str] = []
    steps = [
        Step("third", _never, lambda _: order.append("third"), needs=("second", "first")),
        Step("second", _never, lambda _: order.append("second"), needs=("first",)),
        Step("first", _never, lambda _: order.append("first"), needs=("not in this run",)),
    ]
    assert run_steps(steps, sh, tmp_path, 0)
    assert order == ["first", "second", "third"]


def test_independent_steps_run_in_parallel(sh: Shell, tmp_path: Path) -> None:
    """Each of two steps only ends if the other one has started."""
    both = threading.Barrier(2, timeout=30)

    def meet(_: Shell) -> None:
        both.wait()

    steps = [Step(name, _never, meet) for name in ("one", "other")]
    assert run_steps(steps, sh, tmp_path, 0)


def test_steps_have_separate_logs(sh: Shell, tmp_path: Path) -> None:
    """Steps run in parallel, and their output is not mixed."""

    def echo(name: str) -> Step:
        return Step(name, _never, lambda sh: sh.run("echo", name))

    steps = [echo("one"), echo("other")]
    assert run_steps(steps, sh, tmp_path, 0)
    assert (tmp_path / "one.log").read_text() == "$ echo one\none\n"
    assert (tmp_path / "other.log").read_text() == "$ echo other\nother\n"


def test_running_steps_are_stopped_when_another_step_fails(
    sh: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user sees the cause at once, not after minutes of compilation."""
    started = threading.Event()

    def long(sh: Shell) -> None:
        started.set()
        sh.run("sleep", "600")

    def fail(sh: Shell) -> None:
        started.wait(30)
        sh.run("false")

    assert not run_steps([Step("long", _never, long), Step("broken", _never, fail)], sh, tmp_path, 0)
    shown = capsys.readouterr().out
    assert "stopped" in shown
    assert "broken: `false ...` exited with code 1." in shown


def test_cyclic_steps_are_an_error(sh: Shell, tmp_path: Path) -> None:
    """A cycle in the plan does not block forever."""
    steps = [Step("a", _never, _nothing, needs=("b",)), Step("b", _never, _nothing, needs=("a",))]
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        run_steps(steps, sh, tmp_path, 0)


@pytest.mark.parametrize(
    ("log", "expected"),
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
def test_known_problem_is_one_line_with_the_next_action(log: str, expected: str) -> None:
    """For a full disk, and for an index or a registry that does not answer."""
    found = diagnose(f"$ some command\n{log}\n")
    assert found is not None
    assert expected in found
    assert "\n" not in found
    assert "run the same command again" in found


def test_unknown_problems_have_no_diagnosis() -> None:
    """A compiler's error is not mistaken for a network problem."""
    assert diagnose("main.go:7:2: undefined: thing") is None


def test_missing_command_does_not_succeed(sh: Shell) -> None:
    """A check never raises an error."""
    assert not sh.succeeds("no-such-program")


def test_unreachable_registry_is_reported() -> None:
    """Names in .invalid never resolve. If a registry is unreachable, stand-ins are built."""
    assert published_images.unreachable_hosts(["registry.invalid/a:1", "registry.invalid/b:2"]) == [
        "registry.invalid"
    ]


def test_invalid_images_setting_is_rejected() -> None:
    """The error lists the valid values, because users type IMAGES manually."""
    with pytest.raises(ValueError, match=r"IMAGES=push is not supported.*auto, pull, build"):
        settings.load({"HOME": "/nowhere", "IMAGES": "push"})
