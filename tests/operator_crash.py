"""Runs the operator and kills it with SIGKILL after its Nth write, after a certain write, or after a time.

`python operator_crash.py MODE VALUE run ...`, where `run ...` is the operator's command line. Modes: `writes N` (after
the Nth write), `seconds S`, `text TEXT` (after the first write whose description contains TEXT). It prints each write:
`create Job team-a/a-migrate-1`. The modes `writes` and `text` crash at the latest after the Event that the server is
Ready; `writes 0` crashes only then.

This file also runs in the operator's image, so it may only import the operator and the standard library.
"""

import os
import signal
import sys
import threading
from typing import Any

from mlflow_operator.cli import main
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.runtime import run


class CrashingClient(KubernetesClient):
    """Counts all writes except those of Leases, and crashes after the configured one."""

    crash_after_writes: int | None = None
    crash_on_text: str | None = None
    write_count = 0

    async def _request(self, method: str, path: str, action: str, kind: Kind, **options: Any) -> Any:
        response = await super()._request(method, path, action, kind, **options)
        if method == "GET" or kind == kinds.LEASE:
            return response
        CrashingClient.write_count += 1
        print(action, flush=True)
        is_ready_event = kind == kinds.EVENT and response["reason"] == "Ready"
        is_last_write = CrashingClient.write_count == self.crash_after_writes
        if self.crash_after_writes is not None and (is_last_write or is_ready_event):
            crash()
        if self.crash_on_text is not None and (self.crash_on_text in action or is_ready_event):
            crash()
        return response


def crash() -> None:
    """Kill this process with SIGKILL, so that nothing is completed or released."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    mode, value, *sys.argv[1:] = sys.argv[1:]
    run.KubernetesClient = CrashingClient  # type: ignore[attr-defined]
    if mode == "writes":
        CrashingClient.crash_after_writes = int(value)
    elif mode == "text":
        CrashingClient.crash_on_text = value
    else:
        timer = threading.Timer(float(value), crash)
        timer.daemon = True
        timer.start()
    main()
