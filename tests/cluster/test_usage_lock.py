"""No run removes the cluster while another run uses it."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import settings, usage_lock
from tests.cluster.settings import Settings
from tests.cluster.shell import StepError

TIMEOUT_SECONDS = 20


@pytest.fixture
def s(tmp_path: Path) -> Settings:
    """Settings whose cache is the test's own folder."""
    return replace(settings.load(), cache=tmp_path)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_cluster_in_use_cannot_be_claimed(s: Settings, shared: bool) -> None:
    """The hint says to wait for the other run."""
    with (
        usage_lock.hold(s, shared=shared),
        pytest.raises(StepError, match="another run uses the cluster") as failed,
    ):
        usage_lock.claim(s).__enter__()
    assert "Wait until it ends" in failed.value.hint
    with usage_lock.claim(s):
        pass


def test_shared_sessions_do_not_wait(s: Settings) -> None:
    with usage_lock.hold(s, shared=True), usage_lock.hold(s, shared=True):
        pass


def test_run_waits_for_another_run(s: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with usage_lock.hold(s):
            entered.set()

    with usage_lock.hold(s):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(TIMEOUT_SECONDS)
    waiting.join()
    assert capsys.readouterr().out == "Waiting for another run that uses the cluster.\n"
