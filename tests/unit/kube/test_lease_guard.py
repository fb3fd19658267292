"""A process exits when its Lease has expired, even if its event loop is blocked."""

import logging
import threading

from mlflow_operator.kube.lease_guard import guard_lease

NEVER = float("inf")
WAIT_SECONDS = 20.0


class FakeExit:
    """Replacement for `os._exit` that records the exit code."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.called = threading.Event()

    def __call__(self, code: int) -> None:
        self.code = code
        self.called.set()


def test_process_exits_while_main_thread_is_blocked() -> None:
    exit_process = FakeExit()
    with guard_lease(lambda: 10.0, exit_process, clock=lambda: 10.1):
        assert exit_process.called.wait(WAIT_SECONDS)
    assert exit_process.code == 1


def test_process_exits_although_log_handler_is_blocked() -> None:
    class BlockedHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            exit_process.called.wait(WAIT_SECONDS)

    exit_process, handler, logger = (
        FakeExit(),
        BlockedHandler(),
        logging.getLogger("mlflow_operator.kube.lease_guard"),
    )
    logger.addHandler(handler)
    try:
        with guard_lease(lambda: 10.0, exit_process, clock=lambda: 10.1):
            assert exit_process.called.wait(WAIT_SECONDS / 2)
    finally:
        logger.removeHandler(handler)


def test_process_continues_while_lease_is_renewed() -> None:
    exit_process, checks, expiry = FakeExit(), threading.Semaphore(0), [10.0]

    def expires_at() -> float:
        checks.release()
        return expiry[0]

    def clock() -> float:
        expiry[0] += 0.01
        return expiry[0] - 0.01

    with guard_lease(expires_at, exit_process, clock):
        for _ in range(20):
            assert checks.acquire(timeout=WAIT_SECONDS)
    assert not exit_process.called.is_set()


def test_standby_without_lease_continues() -> None:
    exit_process, checks = FakeExit(), threading.Event()

    def expires_at() -> float:
        checks.set()
        return NEVER

    with guard_lease(expires_at, exit_process, clock=lambda: 1e9):
        assert checks.wait(WAIT_SECONDS)
    assert not exit_process.called.is_set()
