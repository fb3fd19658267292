"""Takes the tracking API straight to MLflow's handlers, and artifacts straight from the store to clients.

MLflow serves its Flask application from within a FastAPI one. The layers between the two take about as much of the
processor as an average handler does, and do for these paths what Flask does once more by itself: host check, headers,
workspaces. All else, and whatever a browser sends, goes MLflow's own way.

While its pod drains, each answer ends its connection: clients that keep theirs would else send a request at the very
moment at which the server closes it.

An artifact that a client downloads MLflow would write to a file first: a wait, and room on the disk, of its size.
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

PATHS = "/api/2.0/mlflow/"
METHODS = {"GET", "POST", "PATCH", "PUT", "DELETE"}
PIECE = 1024 * 1024
DRAINING = ".mlflow-operator-draining"  # below HOME, from the moment on at which the pod is to go
THREADS = 15  # as many connections as SQLAlchemy's pool gives out: one more would wait for one of them


def native(whole):
    """Paths among ours that FastAPI serves itself."""
    found = (getattr(route, "path", "").partition("{")[0] for route in whole.routes)
    return tuple(path for path in found if path.startswith(PATHS))


def call(flask_app, environ):
    """Status, headers and body of one request."""
    begun = []

    def start_response(status, headers, exc_info=None):
        encoded = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers]
        begun[:] = [int(status.split(" ", 1)[0]), encoded]

    answer = flask_app(environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    # a cache must not give a page of elsewhere what was answered to a client; FastAPI's layers say so, too
    status, headers = begun
    said = any(name == b"vary" for name, _ in headers)
    return status, headers if said else [*headers, (b"vary", b"Origin")], body


def quickly_refused(module):
    """MLflow's search asks each time for a module that needs a package which not every image has; without it Python
    reads and compiles all of that module for each search (70 ms), to come to the same end."""
    try:
        importlib.import_module(module)
    except ImportError:
        sys.modules[module] = None


def streamed(whole):
    """Gives `whole` a way of its own to download artifacts, within the same middleware."""
    from fastapi.responses import JSONResponse, StreamingResponse
    from fastapi.routing import APIRoute
    from mlflow.exceptions import MlflowException
    from mlflow.server import artifact_router as native
    from mlflow.utils.mime_type_utils import _guess_mime_type
    from mlflow.utils.uri import validate_path_is_safe

    async def download(artifact_path: str):
        repository = native._get_artifact_repo() if native._is_serving_proxied_artifacts() else None
        if not hasattr(repository, "opened"):
            return await native.download_artifact(artifact_path)
        try:
            path = native._get_workspace_scoped_path(validate_path_is_safe(artifact_path))
            body, size = await asyncio.to_thread(repository.opened, path)
        except MlflowException as error:
            said = json.loads(error.serialize_as_json())
            return JSONResponse(status_code=error.get_http_status_code(), content=said)

        def pieces():
            with body:
                while piece := body.read(PIECE):
                    yield piece

        headers = {
            "Content-Type": _guess_mime_type(path),
            "Content-Length": str(size),
            "Content-Disposition": native._content_disposition(path.rpartition("/")[2]),
            "X-Content-Type-Options": "nosniff",
        }
        return StreamingResponse(pieces(), headers=headers)

    for prefix in ("/api/2.0", "/ajax-api/2.0"):
        route = f"{prefix}/mlflow-artifacts/artifacts/{{artifact_path:path}}"
        whole.router.routes.insert(0, APIRoute(route, download, methods=["GET"], response_model=None))


def parting(application):
    """`application`, which ends the connection with each answer once the file DRAINING is there."""
    flag = os.path.join(os.path.expanduser("~"), DRAINING)
    # the folder outlives a container that was restarted in its pod
    with contextlib.suppress(FileNotFoundError):
        os.unlink(flag)

    draining = functools.partial(os.path.exists, flag)

    async def parted(scope, receive, send):
        async def last(message):
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await application(scope, receive, last if draining() else send)

    return parted


def app():
    """The ASGI application; MLflow calls a function of this name to get it."""
    # imported here: the process that starts the workers loads this file, too, and has no need for all that
    from mlflow.server import app as flask_app
    from mlflow.server import handlers
    from mlflow.server.fastapi_app import app as whole
    from starlette.middleware.wsgi import build_environ

    handlers.message_to_json = writer(handlers.message_to_json)
    quickly_refused("mlflow.server.auth")
    streamed(whole)
    threads, not_ours = ThreadPoolExecutor(THREADS, "tracking"), native(whole)

    def ours(scope):
        return (
            scope["type"] == "http"
            and scope["path"].startswith(PATHS)
            and scope["method"] in METHODS
            and not scope["path"].startswith(not_ours)
            and all(name != b"origin" for name, _ in scope["headers"])
        )

    async def direct(scope, receive, send):
        if not ours(scope):
            await whole(scope, receive, send)
            return
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        environ = build_environ(scope, b"".join(parts))
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        status, headers, body = await loop.run_in_executor(threads, context.run, call, flask_app, environ)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return parting(direct)
