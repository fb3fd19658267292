"""The fast path returns the same responses and the same errors as MLflow's own application."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_operator.model import plugins
from mlflow_operator.pod_scripts import direct

Headers = dict[str, str]
Request = Callable[..., Any]
HOST = {"host": "tracking"}


@pytest.fixture(scope="module")
def request_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Request]:
    """Sends a request to the fast path, or with `to_mlflow` to MLflow's application; returns status, headers, body."""
    folder: Path = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as env:
        env.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder}/mlflow.db")
        env.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(folder))
        env.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "tracking")
        env.setenv("HOME", str(folder))
        env.setenv(direct.ASSISTANT_ENV, "false")
        # MLflow's server sets the tracking URI of its process, which must not affect later tests.
        env.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
        (folder / direct.DRAINING_FILE).touch()
        fast_path = direct.app()
        from mlflow.server.fastapi_app import app as mlflow_app  # noqa: PLC0415  it reads its environment on import

        async def send_request(
            method: str,
            path: str,
            body: object = None,
            headers: Headers = HOST,
            *,
            to_mlflow: bool = False,
            query: bytes = b"",
        ) -> tuple[int, Headers, bytes]:
            content = b"" if body is None else json.dumps(body).encode()
            request_headers = headers | {
                "content-type": "application/json",
                "content-length": str(len(content)),
            }
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
                "headers": [(name.encode(), value.encode()) for name, value in request_headers.items()],
                "client": ("10.0.0.1", 1),
                "server": ("tracking", 5000),
            }
            sent: list[dict[str, Any]] = []
            messages = [{"type": "http.request", "body": content, "more_body": False}]

            async def receive() -> dict[str, Any]:
                return messages.pop() if messages else {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                sent.append(message)

            await (mlflow_app if to_mlflow else fast_path)(scope, receive, send)
            response_headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
            return sent[0]["status"], response_headers, b"".join(part.get("body", b"") for part in sent[1:])

        yield send_request


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
async def test_response_equals_mlflow_response(
    request_app: Request, method: str, path: str, body: object, query: bytes
) -> None:
    """Status, body and headers are the same, for success, missing objects and rejected requests."""
    path = f"/api/2.0/mlflow/{path}"
    status, headers, content = await request_app(method, path, body, query=query)
    assert (status, content) == (await request_app(method, path, body, query=query, to_mlflow=True))[::2]
    mlflow_headers = (await request_app(method, path, body, query=query, to_mlflow=True))[1]
    assert headers == mlflow_headers


async def test_response_is_not_indented(request_app: Request) -> None:
    """Indentation took a tenth of the CPU time of a search; the content is the same without."""
    _, _, content = await request_app("GET", "/api/2.0/mlflow/experiments/get", query=b"experiment_id=0")
    assert json.loads(content)["experiment"]["experiment_id"] == "0"
    assert b"\n" not in content


async def test_unknown_host_is_rejected(request_app: Request) -> None:
    """The host check is not skipped by the fast path."""
    status, _, _ = await request_app(
        "GET", "/api/2.0/mlflow/experiments/get", headers={"host": "evil.example"}, query=b"experiment_id=0"
    )
    assert status == 403


async def test_browser_request_takes_mlflow_path(request_app: Request) -> None:
    """A page of another origin cannot change anything."""
    headers = HOST | {"origin": "http://evil.example"}
    path, body = "/api/2.0/mlflow/experiments/create", {"name": "x"}
    assert (await request_app("POST", path, body, headers))[0] == 403
    assert (await request_app("POST", path, body))[0] == 200


async def test_other_paths_are_served(request_app: Request) -> None:
    """Paths of Flask and of FastAPI."""
    assert (await request_app("GET", "/health"))[::2] == (200, b"OK")
    assert (await request_app("GET", "/api/3.0/mlflow/server-info"))[0] == 200


def test_streamed_download_has_the_dependencies_of_mlflow(
    request_app: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since 3.18, one of them rejects downloads through the server if MLFLOW_ARTIFACTS_PRESIGNED_ONLY is set."""
    from fastapi import Depends, FastAPI  # noqa: PLC0415  slow
    from mlflow.server import artifact_router  # noqa: PLC0415  it reads its environment on import

    reject = Depends(lambda: None)
    for route in artifact_router.artifact_router.routes:
        monkeypatch.setattr(route, "dependencies", [reject])
    app = FastAPI()
    direct.add_streaming_download(app)
    assert [getattr(route, "dependencies", None) for route in app.router.routes[:2]] == [[reject], [reject]]


@pytest.mark.parametrize("path", ["/health", "/api/2.0/mlflow/experiments/get"])
async def test_draining_pod_closes_connections(request_app: Request, path: str) -> None:
    """From the creation of the draining file; a file that an earlier container of the pod left is ignored."""
    arguments = {"query": b"experiment_id=0"}
    assert "connection" not in (await request_app("GET", path, **arguments))[1]
    draining_file = Path.home() / plugins.DRAINING_FILE
    draining_file.touch()
    try:
        status, headers, _ = await request_app("GET", path, **arguments)
    finally:
        draining_file.unlink()
    assert (status, headers["connection"]) == (200, "close")


async def test_assistant_is_not_served(request_app: Request) -> None:
    """Also not to a client on the same host, such as kubectl port-forward or the proxy of a service mesh."""
    for path in ("config", "providers", "message"):
        assistant_path = f"{direct.ASSISTANT_PATH}{path}"
        status, _, content = await request_app("GET", assistant_path)
        assert (status, content) == (404, direct.ASSISTANT_MESSAGE)
    assert (await request_app("GET", f"{direct.ASSISTANT_PATH}config", to_mlflow=True))[0] == 200


async def test_page_does_not_open_the_assistant(request_app: Request) -> None:
    """MLflow opens it at the first visit. A page that the browser has cached is replaced."""
    _, original_headers, original = await request_app("GET", "/", to_mlflow=True)
    headers = HOST | {
        "if-none-match": original_headers["etag"],
        "if-modified-since": "Fri, 31 Dec 2100 00:00:00 GMT",
    }
    assert (await request_app("GET", "/", headers=headers, to_mlflow=True))[0] == 304
    status, changed_headers, content = await request_app("GET", "/", headers=headers)
    assert status == 200
    assert content == original.replace(b"<head>", b"<head>" + direct.HIDE_ASSISTANT)
    assert content != original
    assert changed_headers["content-length"] == str(len(content))
    assert not {"etag", "last-modified"} & changed_headers.keys()
    assert changed_headers["content-type"] == original_headers["content-type"]


async def test_page_is_not_sent_to_an_unknown_host(request_app: Request) -> None:
    assert (await request_app("GET", "/", headers={"host": "evil.example"}))[0] == 403


def test_web_ui_uses_the_settings_that_hide_the_assistant() -> None:
    """The names of the settings are internal to MLflow and may change with a version."""
    scripts = Path(mlflow.__file__).parent.glob("server/js/build/static/js/*.js")
    program = "".join(script.read_text(errors="ignore") for script in scripts)
    for name in (
        "mlflow.assistant.fab.autoOpenedOnFirstLoad",
        "mlflow.assistant.panelOpen",
        "data-assistant-ui",
    ):
        assert name in program
    assert re.search(r"`\$\{\w+\}_v\$\{\w+\}`", program)
