"""Call MLflow's tracking API handlers directly, and stream artifacts from the store to clients.

MLflow serves its Flask application from a FastAPI application. The layers between the two take about as much CPU time
as an average handler, and for these paths they repeat what Flask does itself: host check, headers, workspaces. All
other requests, and all requests from browsers, take MLflow's own path.

While the pod is terminating, each response closes its connection. Otherwise clients with persistent connections would
send a request at the moment at which the server closes the connection.

MLflow's assistant is hidden if ASSISTANT_ENV is `false`.

MLflow would write an artifact to a temporary file before it sends it to a client, which takes time, and as much disk
space as the file has.
"""

import asyncio
import contextlib
import contextvars
import functools
import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from .json_writer import writer

PATH_PREFIX = "/api/2.0/mlflow/"
ASSISTANT_ENV = "MLFLOW_OPERATOR_ASSISTANT"
ASSISTANT_PATH = "/ajax-api/3.0/mlflow/assistant/"
ASSISTANT_MESSAGE = b"The assistant is disabled. An administrator can set spec.assistant to Enabled."
HIDE_ASSISTANT = (
    b"<style>[data-assistant-ui]{display:none!important}</style><script>try{"
    b'localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1","true");'
    b'localStorage.setItem("mlflow.assistant.panelOpen_v1","false")}catch(e){}</script>'
)
"""Keeps the web UI from opening the assistant's panel at the first visit, and hides its buttons."""
CACHE_VALIDATORS = {b"if-none-match", b"if-modified-since"}
METHODS = {"GET", "POST", "PATCH", "PUT", "DELETE"}
CHUNK_BYTES = 1024 * 1024
DRAINING_FILE = ".mlflow-operator-draining"
"""Name of a file in HOME. It exists from the moment at which the pod starts to terminate."""
THREADS = 15
"""Size of SQLAlchemy's connection pool: another thread would wait for a connection."""


def fastapi_paths(mlflow_app):
    """Paths with PATH_PREFIX that FastAPI serves itself."""
    paths = (getattr(route, "path", "").partition("{")[0] for route in mlflow_app.routes)
    return tuple(path for path in paths if path.startswith(PATH_PREFIX))


def call_flask(flask_app, environ):
    """Return status, headers and body of one request."""
    response = []

    def start_response(status, headers, exc_info=None):
        encoded = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers]
        response[:] = [int(status.split(" ", 1)[0]), encoded]

    chunks = flask_app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    # a cache must not return the response for a client to a page of another origin; FastAPI's layers set it, too
    status, headers = response
    has_vary = any(name == b"vary" for name, _ in headers)
    return status, headers if has_vary else [*headers, (b"vary", b"Origin")], body


def cache_import_error(module):
    """Make the import of an unavailable module fail fast.

    Each search in MLflow imports a module that needs a package which not all images contain. Without this, Python reads
    and compiles the module for each search (70 ms) before the import fails.
    """
    try:
        importlib.import_module(module)
    except ImportError:
        sys.modules[module] = None


def add_streaming_download(mlflow_app):
    """Add a route to `mlflow_app` that streams artifacts, behind the same middleware."""
    from fastapi.responses import JSONResponse, StreamingResponse
    from fastapi.routing import APIRoute
    from mlflow.exceptions import MlflowException
    from mlflow.server import artifact_router
    from mlflow.utils.mime_type_utils import _guess_mime_type
    from mlflow.utils.uri import validate_path_is_safe

    async def download(artifact_path: str):
        proxied = artifact_router._is_serving_proxied_artifacts()
        repository = artifact_router._get_artifact_repo() if proxied else None
        if not hasattr(repository, "open_artifact"):
            return await artifact_router.download_artifact(artifact_path)
        try:
            path = artifact_router._get_workspace_scoped_path(validate_path_is_safe(artifact_path))
            body, size = await asyncio.to_thread(repository.open_artifact, path)
        except MlflowException as error:
            content = json.loads(error.serialize_as_json())
            return JSONResponse(status_code=error.get_http_status_code(), content=content)

        def chunks():
            with body:
                while chunk := body.read(CHUNK_BYTES):
                    yield chunk

        headers = {
            "Content-Type": _guess_mime_type(path),
            "Content-Length": str(size),
            "Content-Disposition": artifact_router._content_disposition(path.rpartition("/")[2]),
            "X-Content-Type-Options": "nosniff",
        }
        return StreamingResponse(chunks(), headers=headers)

    dependencies = {
        route.path: route.dependencies
        for route in artifact_router.artifact_router.routes
        if "GET" in getattr(route, "methods", ())
    }
    for prefix in ("/api/2.0", "/ajax-api/2.0"):
        path = f"{prefix}/mlflow-artifacts/artifacts/{{artifact_path:path}}"
        route = APIRoute(
            path, download, methods=["GET"], response_model=None, dependencies=dependencies.get(path)
        )
        mlflow_app.router.routes.insert(0, route)


def close_when_draining(application):
    """Wrap an ASGI application: once DRAINING_FILE exists, each response closes its connection."""
    path = os.path.join(os.path.expanduser("~"), DRAINING_FILE)
    # the folder outlives a container that is restarted in its pod
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)

    is_draining = functools.partial(os.path.exists, path)

    async def wrapped(scope, receive, send):
        async def send_and_close(message):
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await application(scope, receive, send_and_close if is_draining() else send)

    return wrapped


async def refuse_assistant(send):
    """Send the response for each request to the assistant."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(ASSISTANT_MESSAGE)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": ASSISTANT_MESSAGE})


def page_without_assistant(start, body):
    """Return the two messages of the response with the web UI's page. `start` and `body` are MLflow's."""
    body = body.replace(b"<head>", b"<head>" + HIDE_ASSISTANT, 1)
    replaced = {b"content-length", b"etag", b"last-modified"}
    headers = [header for header in start["headers"] if header[0].lower() not in replaced]
    headers.append((b"content-length", str(len(body)).encode()))
    return start | {"headers": headers}, {"type": "http.response.body", "body": body}


def without_assistant(application):
    """Wrap an ASGI application: requests to MLflow's assistant get status 404, and its web UI does not offer it.

    The assistant can run shell commands in the pod. MLflow restricts it to clients on the same host, which includes
    `kubectl port-forward` and, with a service mesh whose proxy runs in the pod, all clients.
    """

    async def send_page(scope, receive, send):
        # the browser may have the page from before: without its validators it gets the page and not status 304
        headers = [header for header in scope["headers"] if header[0] not in CACHE_VALIDATORS]
        start, chunks = {}, []

        async def collect(message):
            if message["type"] == "http.response.start":
                start.update(message)
                return
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                for changed in page_without_assistant(start, b"".join(chunks)):
                    await send(changed)

        await application(scope | {"headers": headers}, receive, collect)

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith(ASSISTANT_PATH):
            await refuse_assistant(send)
        elif scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            await send_page(scope, receive, send)
        else:
            await application(scope, receive, send)

    return wrapped


def app():
    """The ASGI application. MLflow calls a function of this name to get it."""
    # imported here: the process that starts the workers also loads this file, and does not need these modules
    from mlflow.server import app as flask_app
    from mlflow.server import handlers
    from mlflow.server.fastapi_app import app as mlflow_app
    from starlette.middleware.wsgi import build_environ

    handlers.message_to_json = writer(handlers.message_to_json)
    cache_import_error("mlflow.server.auth")
    add_streaming_download(mlflow_app)
    threads, excluded = ThreadPoolExecutor(THREADS, "tracking"), fastapi_paths(mlflow_app)

    def uses_fast_path(scope):
        return (
            scope["type"] == "http"
            and scope["path"].startswith(PATH_PREFIX)
            and scope["method"] in METHODS
            and not scope["path"].startswith(excluded)
            and all(name != b"origin" for name, _ in scope["headers"])
        )

    async def fast_path(scope, receive, send):
        if not uses_fast_path(scope):
            await mlflow_app(scope, receive, send)
            return
        chunks, more_body = [], True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunks.append(message.get("body", b""))
            more_body = message.get("more_body", False)
        environ = build_environ(scope, b"".join(chunks))
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        status, headers, body = await loop.run_in_executor(
            threads, context.run, call_flask, flask_app, environ
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    is_hidden = os.environ.get(ASSISTANT_ENV) == "false"
    return close_when_draining(without_assistant(fast_path) if is_hidden else fast_path)
