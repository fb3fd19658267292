"""Find out who sends a request before MLflow sees it, and refuse requests to closed paths.

Some paths are closed for all users, the administrator included:

- the assistant, which can run shell commands in the pod;
- the form for new users, which is not needed beside MLflow's page for users, and a second way to create them;
- the submission of jobs with parameters of the client's choice. Up to 3.17, every user may submit any of MLflow's
  functions, also on experiments that the user cannot read. The web UI uses other paths, which check permissions.
"""

import base64
import contextvars
import hmac
import json
import os
import re
import traceback
from typing import NamedTuple

from .password_check import TooManyPasswordsError

GATEWAY_TOKEN_ENV = "_MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN"  # noqa: S105 - the name of a variable
"""With this token, background jobs call the AI gateway of the server. MLflow's command sets it for its own
application only."""

ASSISTANT_PATH = "/ajax-api/3.0/mlflow/assistant"
CLOSED_PATHS = {"/signup", "/api/2.0/mlflow/users/create-ui", "/ajax-api/3.0/jobs", ASSISTANT_PATH}
GATEWAY_PATH, GATEWAY_HEADER = "/gateway/", b"x-mlflow-authorization"
RETRY_SECONDS = 1
MAX_CREDENTIALS_BYTES = 8192
"""Maximum length of the header. A name or password is in a query or hashed before it is known to be right."""
HIDDEN_HEADERS = {b"authorization", GATEWAY_HEADER, b"content-length", b"transfer-encoding"}
"""Headers that MLflow does not see without right credentials."""


class Login(NamedTuple):
    """The verified user of a request."""

    username: str
    password: str
    user: object


login = contextvars.ContextVar("login", default=None)


def route(path, root_path=""):
    """Return the path of a request as MLflow's routes have it: without the prefixes that a server can have."""
    for prefix in (root_path.rstrip("/"), os.environ.get("_MLFLOW_STATIC_PREFIX", "").rstrip("/")):
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
    return path


def is_gateway(scope):
    """Whether the AI gateway serves this path."""
    return route(scope["path"], scope.get("root_path", "")).startswith(GATEWAY_PATH)


def is_closed(scope):
    """Whether no client may use this path. MLflow's router ignores repeated slashes."""
    path = route(re.sub("//+", "/", scope["path"]), scope.get("root_path", "")).rstrip("/")
    return path in CLOSED_PATHS or path.startswith(f"{ASSISTANT_PATH}/")


def credentials(scope):
    """Return username and password of a request; None if it has none that MLflow accepts.

    MLflow reads them again itself. If it reads others, it finds no login for them, and the request is refused.
    """
    headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, value)
    # there the other header can contain a key for the provider of the model
    header = headers.get(GATEWAY_HEADER) if is_gateway(scope) else None
    header = header or headers.get(b"authorization", b"")
    scheme, _, encoded = header.strip().partition(b" ")
    if scheme.lower() != b"basic" or len(header) > MAX_CREDENTIALS_BYTES:
        return None
    try:
        username, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    # Postgres has no NUL in texts
    return (username, password) if "\0" not in username else None


def is_gateway_token(scope, password):
    """Whether a background job of this server calls the gateway. MLflow verifies that again."""
    token = os.environ.get(GATEWAY_TOKEN_ENV)
    return bool(token) and is_gateway(scope) and hmac.compare_digest(password.encode(), token.encode())


async def respond(send, status, error_code, message, *headers):
    """Send a response with an error in MLflow's format."""
    body = json.dumps({"error_code": error_code, "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def without_credentials(scope, receive):
    """Return a request with neither credentials nor a body.

    MLflow reads the whole body into memory before it refuses a request, and fails for some credentials.
    """
    headers = [(name, value) for name, value in scope["headers"] if name not in HIDDEN_HEADERS]
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive_no_body():
        for message in messages:
            return message
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return scope | {"headers": headers}, receive_no_body


def with_closed_paths(application):
    """Wrap an ASGI application: requests to closed paths get status 404."""

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and is_closed(scope):
            message = "This path is closed on a server with authentication."
            await respond(send, 404, "ENDPOINT_NOT_FOUND", message)
        else:
            await application(scope, receive, send)

    return wrapped


def with_credentials(application, is_public):
    """Wrap an ASGI application that checks passwords itself: requests without a password get there without a body."""

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and (is_public(scope["path"]) or credentials(scope) is None):
            scope, receive = without_credentials(scope, receive)
        await application(scope, receive, send)

    return wrapped


def with_login(application, check, is_public):
    """Wrap an ASGI application: `check` verifies the password before each request whose path is not public.

    The application itself refuses requests without login, as MLflow does, after its other checks, such as that of the
    host.
    """
    retry = (b"retry-after", str(RETRY_SECONDS).encode())

    async def wrapped(scope, receive, send):
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        found = None if is_public(scope["path"]) else credentials(scope)
        is_internal, user = bool(found) and is_gateway_token(scope, found[1]), None
        if found and not is_internal:
            try:
                user = await check(*found)
            except TooManyPasswordsError:
                message = "Too many passwords are being checked. Try again."
                await respond(send, 429, "REQUEST_LIMIT_EXCEEDED", message, retry)
                return
            except Exception:
                # the message of the error can contain the username, but not the password or its hash
                traceback.print_exc()
                message = "The password could not be checked because the database did not answer."
                await respond(send, 503, "TEMPORARILY_UNAVAILABLE", message, retry)
                return
        login.set(Login(*found, user) if user else None)
        request = (scope, receive) if user or is_internal else without_credentials(scope, receive)
        await application(*request, send)

    return wrapped
