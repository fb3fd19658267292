"""Which failures of the end-to-end tests count at once, and which are tried once more."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e import run

FAILED, BROKEN = pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("codes", "failures", "ends", "tries"),
    [
        ([0], 0, 0, 1),
        ([FAILED, 0], 1, 0, 2),
        ([FAILED, 0], run.FEW, 0, 2),
        ([FAILED, FAILED], 1, FAILED, 2),
        ([FAILED], run.FEW + 1, FAILED, 1),
        ([FAILED], 0, FAILED, 1),
        ([BROKEN], 1, BROKEN, 1),
    ],
    ids=["none", "one", "few", "again", "many", "nobody knows which", "pytest itself"],
)
def test_a_few_failures_are_tried_once_more_alone_and_named(  # noqa: PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    codes: list[int],
    failures: int,
    ends: int,
    tries: int,
) -> None:
    """What fails again is red, and so is what has many victims; one that passes then is named all the same."""
    names = [f"tests/e2e/test_it.py::test_{n}" for n in range(failures)]
    asked: list[list[str]] = []

    def pretended(cache: Path, arguments: list[str], *, in_time: bool = True) -> int:
        asked.append(arguments)
        assert in_time is (len(asked) == 1), "a second try is never left out"
        (cache / "v" / "cache").mkdir(parents=True, exist_ok=True)
        if failures:
            (cache / "v" / "cache" / "lastfailed").write_text(json.dumps(dict.fromkeys(names, True)))
        return codes[len(asked) - 1]

    monkeypatch.setattr(run, "_pytest", pretended)
    kube: Any = SimpleNamespace(settings=SimpleNamespace(root=tmp_path))
    assert run._part(kube, "many", ["-n", "2", "tests/e2e"]) == ends
    assert asked == [["-n", "2", "tests/e2e"], names][:tries]
    unsteady = capsys.readouterr().out.partition("UNSTEADY")[2]
    assert [line for line in unsteady.split("\n") if "::" in line] == (
        names if ends == 0 and tries > 1 else []
    )


def test_no_test_is_begun_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was begun goes on; a session of its own has all the time in the world."""
    monkeypatch.delenv(run.UNTIL, raising=False)
    assert not run.out_of_time()
    monkeypatch.setenv(run.UNTIL, "1")
    assert run.out_of_time()
    monkeypatch.setenv(run.UNTIL, "99999999999")
    assert not run.out_of_time()


@pytest.mark.parametrize("seconds", ["1", "99999999999"])
def test_a_second_try_knows_of_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    """Else a failure would be skipped, and so be green."""
    monkeypatch.setenv(run.UNTIL, seconds)
    given: list[dict[str, str]] = []

    def ran(command: list[str], env: dict[str, str], check: bool) -> Any:
        given.append(env)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("subprocess.run", ran)
    run._pytest(tmp_path, ["x"])
    run._pytest(tmp_path, ["x"], in_time=False)
    assert [run.UNTIL in env for env in given] == [True, False]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 1000 + 60 * run.MINUTES),
        ({run.BEGAN: "400"}, 400 + 60 * run.MINUTES),
        ({run.BEGAN: "400", "MLFLOW_OPERATOR_E2E_MINUTES": "600"}, 400 + 36000),
    ],
    ids=["by themselves", "after the other tests", "as long as asked"],
)
def test_the_time_is_that_of_all_tests_together(environment: dict[str, str], seconds: float) -> None:
    """A machine that had to build everything first is not to find out in the end that there was no time."""
    assert run.ends(environment, 1000) == seconds


def test_what_is_left_out_is_noted_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever process it was."""
    monkeypatch.setattr(run, "LEFT_OUT", tmp_path / "out" / "left-out")
    run.leave_out("tests/e2e/test_it.py::test_one")
    run.leave_out("tests/e2e/test_it.py::test_two")
    assert run.LEFT_OUT.read_text().split() == [
        "tests/e2e/test_it.py::test_one",
        "tests/e2e/test_it.py::test_two",
    ]
