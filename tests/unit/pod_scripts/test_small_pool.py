"""The fast path of a server with small connection pools."""

import pytest

from mlflow_operator.pod_scripts import direct, small_pool


@pytest.mark.parametrize(
    ("pool_size", "max_overflow", "threads"), [(1, 1, 1), (2, 1, 2), (5, 5, 9), (1000, 1000, 15)]
)
def test_threads_leave_one_connection(
    monkeypatch: pytest.MonkeyPatch, pool_size: int, max_overflow: int, threads: int
) -> None:
    """Requests that hold one connection and wait for a second one cannot wait for each other."""
    monkeypatch.setenv(small_pool.POOL_SIZE, str(pool_size))
    monkeypatch.setenv(small_pool.MAX_OVERFLOW, str(max_overflow))
    monkeypatch.setattr(direct, "THREADS", 15)
    monkeypatch.setattr(direct, "app", lambda: direct.THREADS)
    assert small_pool.app() == threads
