"""A minimal client of MLflow's API over plain HTTP, because a load generator must use less CPU than the server."""

import base64
import http.client
import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]

NICENESS = 10


@dataclass
class Api:
    """A server at `address` (host, port). `host` is the Host header, because MLflow rejects unknown hosts.

    `authorization` is the Authorization header; empty means that there is none.
    """

    address: tuple[str, int]
    host: str
    timeout_seconds: float = 30.0
    authorization: str = field(default="", repr=False)
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def post(self, path: str, body: Body) -> tuple[int, bytes]:
        """Send a request on the open connection; returns status and body. Raises OSError or HTTPException."""
        connection = self._connection or http.client.HTTPConnection(
            *self.address, timeout=self.timeout_seconds
        )
        self._connection = connection
        headers = {"Content-Type": "application/json", "Host": self.host}
        if self.authorization:
            headers["Authorization"] = self.authorization
        try:
            connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return response.status, text

    def post_json(self, path: str, body: Body) -> Body:
        """Send a request; returns the parsed response. Raises RuntimeError if its status is not 200."""
        status, text = self.post(path, body)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        response: Body = json.loads(text)
        return response

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def new_connection(self) -> "Api":
        """Return a client of the same server with a new connection."""
        return Api(self.address, self.host, self.timeout_seconds, self.authorization)

    def logged_in(self, username: str, password: str) -> "Api":
        """Return a client of the same server with a new connection, that sends a user name and a password."""
        login = base64.b64encode(f"{username}:{password}".encode()).decode()
        return Api(self.address, self.host, self.timeout_seconds, f"Basic {login}")

    def can_log_run(self) -> bool:
        """Create a run and log a metric; returns whether that succeeded."""
        try:
            run = self.post_json("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"][
                "run_id"
            ]
            self.post_json(
                "runs/log-metric", {"run_id": run, "key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
            )
        except (OSError, http.client.HTTPException, RuntimeError, ValueError):
            return False
        finally:
            self.close()
        return True


@dataclass(frozen=True)
class LoadResult:
    """Result of requests that several clients sent in parallel."""

    succeeded: int
    failed: int
    seconds: float

    @property
    def requests_per_second(self) -> float:
        """Requests per second with status 200."""
        return self.succeeded / self.seconds


def generate_load(api: Api, path: str, bodies: list[Body], seconds: float) -> LoadResult:
    """Run one client for each of `bodies`, which sends it repeatedly on one connection.

    The clients have a low priority, because they share the CPU with the measured servers.
    """
    counts = [[0, 0] for _ in bodies]
    start = time.monotonic()

    def work(index: int) -> None:
        # on Linux this only sets the priority of the thread
        os.nice(NICENESS)
        connection, body = api.new_connection(), bodies[index]
        step = 0
        while time.monotonic() < start + seconds:
            step += 1
            try:
                good = connection.post(path, body | ({"step": step} if "step" in body else {}))[0] == 200
            except (OSError, http.client.HTTPException):
                good = False
                time.sleep(0.2)
            counts[index][0 if good else 1] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return LoadResult(sum(c[0] for c in counts), sum(c[1] for c in counts), time.monotonic() - start)
