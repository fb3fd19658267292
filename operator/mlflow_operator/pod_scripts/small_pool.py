"""The fast path with fewer threads, for a server whose platform limits its database connections.

A request that logs a batch holds one connection while it takes a second one from the same pool. If more threads than
connections did that at the same time, all of them would wait for each other until the pool's timeout.
"""

import os

from . import direct

POOL_SIZE, MAX_OVERFLOW = "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"


def limit_threads():
    """Leave a connection for each thread of the fast path, and one more for a second one."""
    connections = int(os.environ[POOL_SIZE]) + int(os.environ[MAX_OVERFLOW])
    direct.THREADS = min(direct.THREADS, max(connections - 1, 1))


def app():
    """The ASGI application."""
    limit_threads()
    return direct.app()
