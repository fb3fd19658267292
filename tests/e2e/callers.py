"""Which caller gets which status from which route of a server with authentication.

`ROUTES` is the promise. It covers each way into MLflow: the web UI, REST, the paths of the UI, artifacts through both
web frameworks, the gateway, traces, jobs, webhooks, GraphQL, and the accounts themselves. `LISTS` are routes that
every user may call, and that hide what a user may not read.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.accounts import ROLES, USERS, Accounts, Login
from tests.e2e.kube import Object

CALLERS = ("anonymous", "wrong password", "user", "other user", "administrator")
"""`user` may edit the experiment and has no other role. `other user` may read another experiment only."""

Statuses = tuple[int, int, int, int, int]
"""Expected status for each of `CALLERS`."""

_OPEN: Statuses = (200, 200, 200, 200, 200)
_CLOSED: Statuses = (404, 404, 404, 404, 404)
_ANY_USER: Statuses = (401, 401, 200, 200, 200)
_MEMBER: Statuses = (401, 401, 200, 403, 200)
_ADMINISTRATOR: Statuses = (401, 401, 403, 403, 200)

_REST, _UI, _UI3 = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow", "/ajax-api/3.0/mlflow"
_ARTIFACTS = "mlflow-artifacts/artifacts/{experiment}/{run}/artifacts"


@dataclass(frozen=True)
class Route:
    """A request, and the expected status for each of `CALLERS`. `{...}` in path, headers and body is replaced."""

    method: str
    path: str
    expected: Statuses
    body: Object | str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _trace() -> bytes:
    """Return a trace with one span, as OpenTelemetry's exporters send it."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = secrets.token_bytes(16), secrets.token_bytes(8), "asked"
    span.start_time_unix_nano, span.end_time_unix_nano = 1_800_000_000_000_000_000, 1_800_000_001_000_000_000
    body: bytes = request.SerializeToString()
    return body


_METRIC: Object = {"run_id": "{run}", "key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
_RUNS: Object = {"experiment_ids": ["{experiment}"]}
_TRACE_HEADERS = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "{experiment}"}
_CHAT: Object = {"model": "absent", "messages": [{"role": "user", "content": "hello"}]}
_EXISTING_USER: Object = {"username": "{user}", "password": "a-password-of-a-user"}
_QUERY: Object = {
    "operationName": "MLflowGetExperimentQuery",
    "query": 'query MLflowGetExperimentQuery {{ mlflowGetExperiment(input: {{experimentId: "{experiment}"}}) '
    "{{ apiError {{ code }} experiment {{ name }} }} }}",
}

ROUTES = (
    Route("GET", "/health", _OPEN),
    Route("GET", "/metrics", _CLOSED),  # unless the exporter is enabled
    Route("GET", "/api/3.0/mlflow/server-info", _OPEN),
    Route("GET", "/static-files/favicon.ico", _OPEN),
    Route("GET", "/", _ANY_USER),
    Route("GET", "/version", _ANY_USER),
    Route("GET", f"{_UI3}/ui-telemetry", _ANY_USER),
    Route("GET", f"{_REST}/experiments/search?max_results=1", _ANY_USER),
    Route("POST", f"{_REST}/runs/search", _ANY_USER, _RUNS),
    Route("GET", f"{_REST}/experiments/get?experiment_id={{experiment}}", _MEMBER),
    Route("GET", f"{_UI}/experiments/get?experiment_id={{experiment}}", _MEMBER),
    Route("GET", f"{_REST}/runs/get?run_id={{run}}", _MEMBER),
    Route("POST", f"{_REST}/runs/log-metric", _MEMBER, _METRIC),
    Route("POST", f"{_UI}/runs/log-metric", _MEMBER, _METRIC),
    Route("POST", f"{_REST}/experiments/delete", (401, 401, 403, 403, 404), {"experiment_id": "{absent}"}),
    Route("GET", f"{_REST}/registered-models/search", _ANY_USER),
    Route("GET", f"{_REST}/registered-models/get?name=absent", (401, 401, 403, 403, 404)),
    Route("PUT", f"/api/2.0/{_ARTIFACTS}/uploaded.txt", _MEMBER, "uploaded"),
    Route("GET", f"/api/2.0/{_ARTIFACTS}/notes.txt", _MEMBER),
    Route("GET", f"/ajax-api/2.0/{_ARTIFACTS}/notes.txt", _MEMBER),
    Route("GET", "/api/2.0/mlflow-artifacts/artifacts?path={experiment}/{run}/artifacts", _MEMBER),
    Route("GET", "/get-artifact?run_uuid={run}&path=notes.txt", _MEMBER),
    Route("POST", f"{_UI}/upload-artifact?run_uuid={{run}}&path=posted.txt", _MEMBER, "posted"),
    Route("DELETE", f"/api/2.0/{_ARTIFACTS}/uploaded.txt", _ADMINISTRATOR),  # requires MANAGE
    Route("POST", "/v1/traces", _MEMBER, _trace(), _TRACE_HEADERS),
    Route("GET", "/gateway/mlflow/v1/models", _ANY_USER),
    Route("POST", "/gateway/mlflow/v1/chat/completions", (401, 401, 403, 403, 404), _CHAT),
    Route("POST", "/gateway/absent/mlflow/invocations", (401, 401, 403, 403, 404), _CHAT),
    Route("POST", "/ajax-api/3.0/jobs/", _CLOSED, {"job_name": "run_online_trace_scorer", "params": {}}),
    Route("GET", "/ajax-api/3.0/jobs/absent", (401, 401, 403, 403, 404)),
    Route("GET", f"{_REST}/webhooks", _ADMINISTRATOR),
    Route("POST", "/graphql", _ANY_USER, _QUERY),
    Route("GET", f"{_UI3}/assistant/config", _CLOSED),
    Route("GET", "/signup", _CLOSED),
    Route("POST", f"{_REST}/users/create-ui", _CLOSED, _EXISTING_USER),
    Route("POST", f"{USERS}/create", (401, 401, 403, 403, 400), _EXISTING_USER),
    Route("POST", f"{_UI}/users/create", (401, 401, 403, 403, 400), _EXISTING_USER),
    Route("GET", f"{USERS}/list", _ANY_USER),
    Route("DELETE", f"{USERS}/delete", (401, 401, 403, 403, 404), {"username": "absent"}),
    Route(
        "PATCH", f"{USERS}/update-admin", (401, 401, 403, 403, 404), {"username": "absent", "is_admin": True}
    ),
    Route(
        "PATCH",
        f"{USERS}/update-password",
        (401, 401, 403, 403, 404),
        {"username": "absent", "password": "x" * 12},
    ),
    Route("POST", f"{ROLES}/create", (401, 401, 403, 403, 400), {"name": "{name}", "workspace": "default"}),
)

"""Expected statuses of the default version, without Prometheus' exporter."""

LISTS = (
    Route("GET", f"{_REST}/experiments/search?max_results=1000", _ANY_USER),
    Route("POST", f"{_REST}/runs/search", _ANY_USER, _RUNS),
    Route("POST", "/graphql", _ANY_USER, _QUERY),
)
"""Routes whose response contains the name of the experiment or the id of the run if the caller may read them."""

_BEFORE_3_17 = {
    "GET /api/3.0/mlflow/server-info": _ANY_USER,
    "GET /gateway/mlflow/v1/models": (401, 401, 400, 400, 404),
}
DIFFERENCES: Mapping[str, Mapping[str, Statuses]] = {
    "3.14.0": {**_BEFORE_3_17, "GET /ajax-api/3.0/jobs/absent": (401, 401, 404, 404, 404)},
    "3.16.1": _BEFORE_3_17,
}
"""Other expected statuses, by version and route."""

WITH_EXPORTER: Mapping[str, Statuses] = {"GET /metrics": _OPEN}
"""Other expected statuses if Prometheus' exporter is enabled."""


def expected(differences: Mapping[str, Statuses] | None = None) -> dict[str, Statuses]:
    """Return the expected statuses by route."""
    return {str(route): route.expected for route in ROUTES} | dict(differences or {})


@dataclass(frozen=True)
class Scene:
    """An experiment with a run and an artifact, and the logins of all callers."""

    accounts: Accounts
    values: Mapping[str, str]
    logins: Mapping[str, Login | None]

    def statuses(self) -> dict[str, Statuses]:
        """Send each request as every caller; returns the statuses in the order of `CALLERS`, by route."""
        return {str(route): self._statuses(route) for route in ROUTES}

    def readers(self, route: Route) -> set[str]:
        """Return the callers whose response shows the experiment or its run."""
        secret_texts = self.values["name"], self.values["run"]
        responses = {caller: self._send(route, self.logins[caller]).text for caller in CALLERS}
        return {caller for caller, text in responses.items() if any(found in text for found in secret_texts)}

    def _statuses(self, route: Route) -> Statuses:
        found = [self._send(route, self.logins[caller]).status_code for caller in CALLERS]
        return found[0], found[1], found[2], found[3], found[4]

    def _send(self, route: Route, login: Login | None) -> requests.Response:
        headers = {name: self._replaced(text) for name, text in route.headers.items()}
        body = route.body
        if isinstance(body, dict):
            body = json.dumps({key: self._in_value(value) for key, value in body.items()})
            headers = {"Content-Type": "application/json", **headers}
        path = self._replaced(route.path)
        options = {"data": body, "headers": headers, "allow_redirects": False}
        return self.accounts.send(route.method, path, login, **options)

    def _in_value(self, value: object) -> object:
        match value:
            case str():
                return self._replaced(value)
            case list():
                return [self._in_value(item) for item in value]
            case _:
                return value

    def _replaced(self, text: str) -> str:
        return text.format_map(self.values)


def prepare(accounts: Accounts) -> Scene:
    """Create users, roles, an experiment with a run, and an artifact, with names that occur once."""
    suffix = secrets.token_hex(4)
    names = [f"{name}-{suffix}" for name in ("research", "elsewhere")]
    experiment, elsewhere = (
        accounts.call("POST", f"{_REST}/experiments/create", {"name": name})["experiment_id"]
        for name in names
    )
    user, other = (accounts.create_user(f"{name}-{suffix}") for name in ("user", "other"))
    accounts.create_role(names[0], [("experiment", experiment, "EDIT")], user)
    accounts.create_role(names[1], [("experiment", elsewhere, "READ")], other)
    body = {"experiment_id": experiment, "start_time": 1}
    run = accounts.call("POST", f"{_REST}/runs/create", body)["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/notes.txt"
    assert accounts.send("PUT", path, accounts.administrator, data="notes").ok
    values = {
        "experiment": experiment,
        "run": run,
        "name": names[0],
        "user": user.username,
        "absent": "999999",
    }
    return Scene(
        accounts,
        values,
        {
            "anonymous": None,
            "wrong password": Login(user.username, "not-the-password"),
            "user": user,
            "other user": other,
            "administrator": accounts.administrator,
        },
    )
