"""MLflow's API over plain HTTP: a load generator must use less CPU than the server."""

import http.client
import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]

NICE = 10


@dataclass
class Api:
    """A server at `address` (host, port); `host` is the Host header, because MLflow rejects unknown hosts."""

    address: tuple[str, int]
    host: str
    seconds: float = 30.0
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def post(self, path: str, body: Body) -> tuple[int, bytes]:
        """Status and body. Reuses its connection; raises OSError or HTTPException if there is no answer."""
        connection = self._connection or http.client.HTTPConnection(*self.address, timeout=self.seconds)
        self._connection = connection
        headers = {"Content-Type": "application/json", "Host": self.host}
        try:
            connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return answer.status, text

    def must(self, path: str, body: Body) -> Body:
        """The answer. Raises RuntimeError if its status is not 200."""
        status, text = self.post(path, body)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        answer: Body = json.loads(text)
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def another(self) -> "Api":
        """The same server, with a new connection."""
        return Api(self.address, self.host, self.seconds)

    def first_run(self) -> bool:
        """Whether a run could be created and a metric logged to it."""
        try:
            run = self.must("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
            self.must(
                "runs/log-metric", {"run_id": run, "key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
            )
        except (OSError, http.client.HTTPException, RuntimeError, ValueError):
            return False
        finally:
            self.close()
        return True


@dataclass(frozen=True)
class Load:
    """The requests that several clients sent at the same time."""

    done: int
    failed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second that were answered with 200."""
        return self.done / self.seconds


def load(api: Api, path: str, bodies: list[Body], seconds: float) -> Load:
    """One client for each of `bodies`, which sends it repeatedly on one connection.

    The clients have a low priority: they share the CPU with the servers that are measured.
    """
    counts = [[0, 0] for _ in bodies]
    began = time.monotonic()

    def work(index: int) -> None:
        # on Linux the priority is that of the thread
        os.nice(NICE)
        own, body = api.another(), bodies[index]
        step = 0
        while time.monotonic() < began + seconds:
            step += 1
            try:
                good = own.post(path, body | ({"step": step} if "step" in body else {}))[0] == 200
            except (OSError, http.client.HTTPException):
                good = False
                time.sleep(0.2)
            counts[index][0 if good else 1] += 1
        own.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(sum(c[0] for c in counts), sum(c[1] for c in counts), time.monotonic() - began)
