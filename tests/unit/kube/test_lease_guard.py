"""A process whose Lease has expired ends, whatever its event loop does."""

import logging
import threading

from mlflow_operator.kube.lease_guard import guarding

NEVER = float("inf")
WAIT_SECONDS = 20.0


class Exit:
    """Stands for the end of the process: keeps the exit code."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.called = threading.Event()

    def __call__(self, code: int) -> None:
        self.code = code
        self.called.set()


def test_process_ends_while_its_main_thread_is_blocked() -> None:
    end = Exit()
    with guarding(lambda: 10.0, end, clock=lambda: 10.1):
        assert end.called.wait(WAIT_SECONDS)
    assert end.code == 1


def test_process_ends_although_its_log_is_blocked() -> None:
    class Blocked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            end.called.wait(WAIT_SECONDS)

    end, handler, logger = Exit(), Blocked(), logging.getLogger("mlflow_operator.kube.lease_guard")
    logger.addHandler(handler)
    try:
        with guarding(lambda: 10.0, end, clock=lambda: 10.1):
            assert end.called.wait(WAIT_SECONDS / 2)
    finally:
        logger.removeHandler(handler)


def test_process_goes_on_while_its_lease_is_renewed() -> None:
    end, looked, renewed = Exit(), threading.Semaphore(0), [10.0]

    def expires() -> float:
        looked.release()
        return renewed[0]

    def clock() -> float:
        renewed[0] += 0.01
        return renewed[0] - 0.01

    with guarding(expires, end, clock):
        for _ in range(20):
            assert looked.acquire(timeout=WAIT_SECONDS)
    assert not end.called.is_set()


def test_standby_without_a_lease_goes_on() -> None:
    end, looked = Exit(), threading.Event()

    def expires() -> float:
        looked.set()
        return NEVER

    with guarding(expires, end, clock=lambda: 1e9):
        assert looked.wait(WAIT_SECONDS)
    assert not end.called.is_set()
