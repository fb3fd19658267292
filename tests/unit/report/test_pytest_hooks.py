"""The root conftest in a separate pytest: records of tests, and the marker long_running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report import records
from tests.report.records import FAILED, PASSED, SKIPPED

SUITE = """
import os
import subprocess
import sys
import time
import pytest
from tests.report import servers

def test_passes():
    servers.count(2)

def test_computes():
    begin = time.process_time()
    while time.process_time() < begin + 0.1:
        pass

def test_has_a_child_process_that_computes():
    code = "import time\\nwhile time.process_time() < 0.1: pass"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_fails():
    assert False

@pytest.mark.skip(reason="needs root")
def test_skipped():
    pass

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_teardown_fails(broken):
    pass

@pytest.mark.long_running(reason="takes minutes")
def test_long():
    pass
"""


MEASURED = """
def first():
    return 1

def second():
    return 2

def unused():
    return 3
"""
MEASURING_PLUGIN = """
from pathlib import Path
from tests.report.coverage import Coverage

def pytest_load_initial_conftests(early_config):
    folder = Path(__file__).parent
    early_config.pluginmanager.register(Coverage(folder / "measured", folder / "missing.txt"))
"""
MEASURED_SUITE = """
from measured import functions

def test_first():
    functions.first()

def test_second():
    functions.second()
"""


def run(folder: Path, source: str, *arguments: str, recorded: bool = True) -> tuple[int, str]:
    """Run pytest with the root conftest on one file; returns exit code and output."""
    (folder / "test_it.py").write_text(source)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env.pop(records.TIER_FOLDER_VARIABLE, None)
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the other plugins take a second to import
    if recorded:
        env[records.TIER_FOLDER_VARIABLE] = str(folder / "records" / "unit")
    options = ("-p", "tests.conftest", "-p", "no:cacheprovider", "--strict-markers")
    env["PYTHONPATH"] = str(folder)
    xdist = ("-p", "xdist") if "-n" in arguments else ()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *xdist, f"--rootdir={folder}", str(folder), *arguments],
        cwd=records.ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_every_test_is_recorded_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, output = run(tmp_path, SUITE, *arguments)
    recorded_tests = {test.test.split("::")[1]: test for test in records.tests(tmp_path / "records", "unit")}
    assert code == 1, output
    assert {name: test.outcome for name, test in recorded_tests.items()} == {
        "test_passes": PASSED,
        "test_computes": PASSED,
        "test_has_a_child_process_that_computes": PASSED,
        "test_fails": FAILED,
        "test_skipped": SKIPPED,
        "test_teardown_fails": FAILED,
    }
    assert recorded_tests["test_skipped"].reason == "needs root"
    assert {name for name, test in recorded_tests.items() if test.servers} == {"test_passes"}
    assert recorded_tests["test_passes"].servers == 2
    assert recorded_tests["test_computes"].own_cpu > 0.09
    assert recorded_tests["test_has_a_child_process_that_computes"].own_cpu > 0.09
    workers = {test.worker for test in recorded_tests.values()}
    assert workers == ({"gw0", "gw1"} if arguments else {"main"})
    assert len(list((tmp_path / "records" / "unit").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "recorded"),
    [((), True), (("-n", "2"), True), (("-n", "2"), False)],
    ids=["one process", "two workers", "outside of a tier"],
)
def test_coverage_of_all_processes_is_combined(
    tmp_path: Path, arguments: tuple[str, ...], recorded: bool
) -> None:
    """Five of six lines. The total is printed, and recorded in a tier. A file names the missing line."""
    pytest.importorskip("slipcover", reason="SlipCover has no wheel for this platform")
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "functions.py").write_text(MEASURED)
    (tmp_path / "measuring.py").write_text(MEASURING_PLUGIN)
    code, output = run(tmp_path, MEASURED_SUITE, "-p", "measuring", *arguments, recorded=recorded)
    assert code == 0, output
    assert output.count("coverage: 83 % of ") == 1
    percent = records.coverage(tmp_path / "records", "unit")
    assert percent == (pytest.approx(100 * 5 / 6) if recorded else None)
    (row,) = [line for line in (tmp_path / "missing.txt").read_text().splitlines() if "functions.py" in line]
    assert row.split()[-1] == str(MEASURED.splitlines().index("    return 3") + 1)


def test_import_error_is_recorded_as_failed(tmp_path: Path) -> None:
    run(tmp_path, "import nothing_of_this_name", "-n", "2")
    assert [test.outcome for test in records.tests(tmp_path / "records", "unit")] == [FAILED]


def test_worker_crash_is_recorded_as_failed(tmp_path: Path) -> None:
    run(tmp_path, "import os\n\ndef test_crashes():\n    os._exit(1)\n", "-n", "1")
    assert [test.outcome for test in records.tests(tmp_path / "records", "unit")] == [FAILED]


def test_nothing_is_recorded_outside_of_a_tier(tmp_path: Path) -> None:
    code, output = run(tmp_path, "def test_passes():\n    pass\n", recorded=False)
    assert code == 0, output
    assert not (tmp_path / "records").exists()


def test_long_running_tests_only_run_with_all(tmp_path: Path) -> None:
    code, output = run(tmp_path, SUITE, "-k", "long or passes", "--all")
    assert code == 0, output
    assert "2 passed, 5 deselected" in output
    code, output = run(tmp_path, SUITE, "-k", "long or passes")
    assert code == 0, output
    assert "1 passed, 6 deselected" in output


@pytest.mark.parametrize("arguments", [(), ("--all", "-n", "2")], ids=["default", "all in two workers"])
def test_long_running_without_a_reason_is_an_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    source = """
import pytest

def test_other():
    pass

@pytest.mark.long_running
def test_bare():
    pass

@pytest.mark.long_running(reason=" ")
def test_empty():
    pass

@pytest.mark.long_running("takes minutes")
def test_without_the_name():
    pass
"""
    code, output = run(tmp_path, source, *arguments)
    assert code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    for name in ("test_bare", "test_empty", "test_without_the_name"):
        assert f"test_it.py::{name} needs a reason" in output
    assert "test_other" not in output
    assert "passed" not in output
