"""The tracking API without the layers in between: the same answers, the same refusals."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.model import plugins
from mlflow_operator.pod_scripts import direct

Headers = dict[str, str]
Ask = Callable[..., Any]
HOST = {"host": "tracking"}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks the application, or MLflow's own with `whole`; gives status, headers and body."""
    folder: Path = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as env:
        env.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder}/mlflow.db")
        env.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(folder))
        env.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "tracking")
        env.setenv("HOME", str(folder))
        # MLflow's server sets the tracking URI of its process, which later tests must not find.
        env.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
        (folder / direct.DRAINING).touch()
        application = direct.app()
        from mlflow.server.fastapi_app import app as mlflows  # noqa: PLC0415  it reads its environment on import

        async def asked(
            method: str,
            path: str,
            body: object = None,
            headers: Headers = HOST,
            *,
            whole: bool = False,
            query: bytes = b"",
        ) -> tuple[int, Headers, bytes]:
            content = b"" if body is None else json.dumps(body).encode()
            given = headers | {"content-type": "application/json", "content-length": str(len(content))}
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": query,
                "root_path": "",
                "headers": [(name.encode(), value.encode()) for name, value in given.items()],
                "client": ("10.0.0.1", 1),
                "server": ("tracking", 5000),
            }
            said: list[dict[str, Any]] = []
            messages = [{"type": "http.request", "body": content, "more_body": False}]

            async def receive() -> dict[str, Any]:
                return messages.pop() if messages else {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                said.append(message)

            await (mlflows if whole else application)(scope, receive, send)
            headers_said = {name.decode(): value.decode() for name, value in said[0]["headers"]}
            return said[0]["status"], headers_said, b"".join(part.get("body", b"") for part in said[1:])

        yield asked


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("GET", "experiments/get", None, b"experiment_id=0"),
        ("POST", "runs/search", {"experiment_ids": ["0"], "max_results": 5}, b""),
        ("POST", "runs/log-metric", {"run_id": "none", "key": "a", "value": 1, "timestamp": 1}, b""),
        ("POST", "runs/create", {"experiment_id": 7.5}, b""),
        ("GET", "no/such/path", None, b""),
    ],
)
async def test_the_answer_is_the_one_that_mlflow_gives(
    ask: Ask, method: str, path: str, body: object, query: bytes
) -> None:
    """What is found, what is not, and what is refused; by the same headers."""
    path = f"/api/2.0/mlflow/{path}"
    status, headers, content = await ask(method, path, body, query=query)
    assert (status, content) == (await ask(method, path, body, query=query, whole=True))[::2]
    whole = (await ask(method, path, body, query=query, whole=True))[1]
    assert headers == whole


async def test_an_answer_is_not_indented(ask: Ask) -> None:
    """That alone took a tenth of the processor that a search takes; what it says is the same."""
    _, _, content = await ask("GET", "/api/2.0/mlflow/experiments/get", query=b"experiment_id=0")
    assert json.loads(content)["experiment"]["experiment_id"] == "0"
    assert b"\n" not in content


async def test_a_strange_host_is_refused_as_ever(ask: Ask) -> None:
    """The check is not one of the layers that are left out."""
    status, _, _ = await ask(
        "GET", "/api/2.0/mlflow/experiments/get", headers={"host": "evil.example"}, query=b"experiment_id=0"
    )
    assert status == 403


async def test_what_a_browser_sends_goes_mlflows_own_way(ask: Ask) -> None:
    """A page of elsewhere may not change anything."""
    headers = HOST | {"origin": "http://evil.example"}
    path, body = "/api/2.0/mlflow/experiments/create", {"name": "x"}
    assert (await ask("POST", path, body, headers))[0] == 403
    assert (await ask("POST", path, body))[0] == 200


async def test_all_other_paths_are_there(ask: Ask) -> None:
    """Those of Flask and those of FastAPI."""
    assert (await ask("GET", "/health"))[::2] == (200, b"OK")
    assert (await ask("GET", "/api/3.0/mlflow/server-info"))[0] == 200


@pytest.mark.parametrize("path", ["/health", "/api/2.0/mlflow/experiments/get"])
async def test_a_pod_that_drains_parts_from_its_clients(ask: Ask, path: str) -> None:
    """From the moment on at which it is told to; what was told to the container before it in the pod is over."""
    asked = {"query": b"experiment_id=0"}
    assert "connection" not in (await ask("GET", path, **asked))[1]
    flag = Path.home() / plugins.DRAINING
    flag.touch()
    try:
        status, headers, _ = await ask("GET", path, **asked)
    finally:
        flag.unlink()
    assert (status, headers["connection"]) == (200, "close")
