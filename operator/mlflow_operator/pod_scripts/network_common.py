"""Wait for the network of the pod. It is put in front of the code of the programs that connect to the database first.

The proxy of a service mesh may start after this container. Until then, all connections are refused or reset.
"""

import re
import time

NETWORK_TIMEOUT_SECONDS = 30
"""Until an error of the network counts. A proxy starts within seconds."""

NETWORK_ERROR = re.compile(
    "refused|reset by peer|closed the connection|timed out|timeout expired|translate host name|unreachable|No route"
)
"""Errors of libpq without an answer of the database server."""


def when_network_ready(connect):
    """Return the result of `connect`, which is called again after an error of the network."""
    deadline = time.monotonic() + NETWORK_TIMEOUT_SECONDS
    while True:
        try:
            return connect()
        except Exception as error:
            if not NETWORK_ERROR.search(str(error)) or time.monotonic() > deadline:
                raise
            print(f"connecting again: {' '.join(str(error).split())[:300]}", flush=True)
            time.sleep(1)
