"""The operator as it is, made to die: right after its Nth write, after a certain one, or at a moment.

Runs in the operator's image as well, so it may import the operator and Python's own library, and nothing else:
`python mortal.py writes <N> run …`, where what follows is the operator's own command line, or `seconds <S>`, or
`upon <words>`: after the first write that holds these words. Prints each write: `create Job team-a/a-migrate-1`.
Unless it waits for a moment it dies, at the latest, when it has told that the server is Ready; 0 writes are only that.
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


class Mortal(KubernetesClient):
    """Counts what is written, leases aside."""

    last: int | None = None
    upon: str | None = None
    written = 0

    async def _request(self, method: str, path: str, doing: str, kind: Kind, **more: Any) -> Any:
        answer = await super()._request(method, path, doing, kind, **more)
        if method == "GET" or kind == kinds.LEASE:
            return answer
        Mortal.written += 1
        print(doing, flush=True)
        told_ready = kind == kinds.EVENT and answer["reason"] == "Ready"
        if self.last is not None and (Mortal.written == self.last or told_ready):
            die()
        if self.upon is not None and (self.upon in doing or told_ready):
            die()
        return answer


def die() -> None:
    """As by the kernel: nothing is finished, nothing is given back."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    how, when, *sys.argv[1:] = sys.argv[1:]
    run.KubernetesClient = Mortal  # type: ignore[attr-defined]
    if how == "writes":
        Mortal.last = int(when)
    elif how == "upon":
        Mortal.upon = when
    else:
        timer = threading.Timer(float(when), die)
        timer.daemon = True
        timer.start()
    main()
