"""Recorded responses of an API server that tests can modify, and an HTTP server that returns them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from mlflow_operator.api.crd import PLATFORM, SERVER, CustomResource, custom_resource_definition
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.kube.objects import Object
from tests.unit.api.platform_refusals import platform as platform_spec
from tests.unit.kubeconfig import write_kubeconfig
from tests.unit.platform_simulation import SELECTED

ADMIN = "kubernetes-admin"
ACCOUNT = "system:serviceaccount:mlflow-operator:mlflow-operator"
URL = "http://tracking.team-a.svc:5000"
LABELS = {"app.kubernetes.io/name": "mlflow-operator", "app.kubernetes.io/component": "operator"}
_CREATED = "2026-11-01T00:00:00Z"


def crd(resource: CustomResource = SERVER) -> Object:
    """The CRD as the API server returns it."""
    document: Object = json.loads(json.dumps(custom_resource_definition(resource)))
    conditions = [
        {"type": condition_type, "status": "True"} for condition_type in ("NamesAccepted", "Established")
    ]
    return {**document, "status": {"conditions": conditions}}


def deployment(replicas: int = 1, ready: int = 1, version: str = "0.1.0", *args: str) -> Object:
    """The operator's Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "mlflow-operator",
            "namespace": "mlflow-operator",
            "labels": {**LABELS, "app.kubernetes.io/version": version},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": {
                "spec": {
                    "serviceAccountName": "mlflow-operator",
                    "containers": [
                        {"name": "operator", "args": ["run", "--lease-name=mlflow-operator", *args]}
                    ],
                }
            },
        },
        "status": {"readyReplicas": ready},
    }


def pod(**state: Object) -> Object:
    """The operator's pod with a container in this state."""
    return {
        "metadata": {"name": "mlflow-operator-6f7c", "namespace": "mlflow-operator", "labels": LABELS},
        "status": {
            "containerStatuses": [{"name": "operator", "ready": "running" in state, "state": state}],
        },
    }


def condition(
    condition_type: str, status: str = "True", reason: str = "Ready", message: str = "Ready."
) -> Object:
    """A condition of a server."""
    return {"type": condition_type, "status": status, "reason": reason, "message": message}


def server(*conditions: Object, **status: Any) -> Object:
    """A ready MLflowServer, except for the given conditions and status fields."""
    types = (
        "CredentialsReady",
        "DatabaseReady",
        "ArtifactStoreReady",
        "SchemaReady",
        "ServerAvailable",
        "Ready",
    )
    by_type = {name: condition(name) for name in types} | {entry["type"]: entry for entry in conditions}
    return {
        "apiVersion": "mlflow-operator.dev/v1alpha1",
        "kind": "MLflowServer",
        "metadata": {
            "name": "tracking",
            "namespace": "team-a",
            "generation": 3,
            "creationTimestamp": _CREATED,
        },
        "spec": {},
        "status": {
            "observedGeneration": 3,
            "url": URL,
            "version": "3.17.2",
            "schemaRevision": "dc11669786a5",
            "replicas": 1,
            "readyReplicas": 1,
            "database": {
                "type": "Embedded",
                "host": "tracking-postgres.team-a.svc",
                "port": 5432,
                "name": "mlflow",
            },
            "artifacts": {"type": "Embedded", "uri": "s3://mlflow"},
            "conditions": [*by_type.values()],
            **status,
        },
    }


def platform(
    *conditions: Object, spec: Object | None = None, name: str = "shared", is_default: bool = True
) -> Object:
    """A ready MLflowPlatform that selects the namespace of the server, except for the given conditions and spec."""
    types = ("DatabaseReady", "ArtifactStoreReady", "Ready")
    by_type = {each: condition(each) for each in types} | {entry["type"]: entry for entry in conditions}
    return {
        "apiVersion": "mlflow-operator.dev/v1alpha1",
        "kind": "MLflowPlatform",
        "metadata": {
            "name": name,
            "generation": 2,
            "creationTimestamp": _CREATED,
            "annotations": {DEFAULT_ANNOTATION: "true"} if is_default else {},
        },
        "spec": spec or platform_spec(),
        "status": {"observedGeneration": 2, "conditions": [*by_type.values()]},
    }


def uses_platform(name: str = "shared", *parts: str) -> Object:
    """A ready server on a platform."""
    return server(platform={"name": name, "uid": "1", "parts": [*(parts or ("Artifacts", "Database"))]})


@dataclass
class RecordedAPIServer:
    """Objects and permissions of the API server. All checks pass until a test modifies them."""

    servers: list[Object] | None = field(default_factory=lambda: [server()])
    crds: list[Object] = field(default_factory=lambda: [crd(), crd(PLATFORM)])
    deployments: list[Object] = field(default_factory=lambda: [deployment()])
    pods: list[Object] = field(default_factory=lambda: [pod(running={})])
    lease: Object | None = field(
        default_factory=lambda: {
            "holderIdentity": "mlflow-operator-6f7c_1a2b",
            "leaseDurationSeconds": 1,
            "renewTime": "2026-11-01T00:00:00.000000Z",
        }
    )
    renews_lease: bool = True
    user: str = ADMIN
    platforms: list[Object] | None = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=lambda: {"team-a": {**SELECTED}})
    forbidden: set[str] = field(default_factory=set)
    """Resources (plural, with the subresource) that cannot be read, or with " list" not be listed; `impersonate`."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Resources and verbs that the operator's account is not allowed to use."""
    proxy_response: tuple[int, Any] = (200, {"experiments": []})
    exec_output: str = json.dumps({URL: {"status": 200, "error": "", "host_rejected": False}})
    requests: list[str] = field(default_factory=list)
    impersonated: set[str] = field(default_factory=set)
    reviewed: list[Object] = field(default_factory=list)
    """Attributes of all access reviews."""
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await self._respond(request, request.path.split("/")[2:])

    async def _respond(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        resource, namespace, name = _parse_path(parts)
        if resource.startswith("selfsubject"):
            return await self._review(request, resource)
        if resource in self.forbidden or (not name and f"{resource} list" in self.forbidden):
            return _status(403, "Forbidden", f"{resource} is forbidden")
        if resource == "pods/exec":
            return await self._exec(request)
        if resource == "services/proxy":
            return web.json_response(self.proxy_response[1], status=self.proxy_response[0])
        selected = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        return self._stored(resource, namespace, name, selected)

    def _stored(self, resource: str, namespace: str | None, name: str, selected: str) -> web.Response:
        if resource == "leases":
            return self._lease()
        stored = {
            "mlflowservers": self.servers,
            "deployments": self.deployments,
            "pods": self.pods,
            "customresourcedefinitions": self.crds,
            "mlflowplatforms": self.platforms,
            "namespaces": [
                {"metadata": {"name": name, "labels": labels}} for name, labels in self.namespaces.items()
            ],
        }[resource]
        if stored is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        items = [obj for obj in stored if namespace in (None, obj["metadata"].get("namespace"))]
        if selected:
            items = [obj for obj in items if obj["metadata"]["name"] == selected]
        if not name:
            return web.json_response({"items": items})
        named = [obj for obj in items if obj["metadata"]["name"] == name]
        return web.json_response(named[0]) if named else _status(404, "NotFound", "no such object")

    async def _review(self, request: web.Request, review: str) -> web.Response:
        body = await request.json()
        user = request.headers.get("Impersonate-User")
        if review == "selfsubjectreviews":
            return web.json_response({**body, "status": {"userInfo": {"username": self.user}}}, status=201)
        if user:
            self.impersonated.add(user)
            if "impersonate" in self.forbidden:
                return _status(403, "Forbidden", f"cannot impersonate {user}")
        attributes = body["spec"]["resourceAttributes"]
        self.reviewed.append(attributes)
        resource = "/".join(part for part in (attributes["resource"], attributes["subresource"]) if part)
        allowed = (resource, attributes["verb"]) not in self.denied
        return web.json_response({**body, "status": {"allowed": allowed}}, status=201)

    def _lease(self) -> web.Response:
        if self.lease is None:
            return _status(404, "NotFound", "no such lease")
        spec = dict(self.lease)
        if self.renews_lease:
            self.lease["renewTime"] += "0"
        return web.json_response({"spec": spec})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        channels = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await channels.prepare(request)
        self.requests.append("run " + " ".join(request.query.getall("command")))
        await channels.send_bytes(b"\x01" + self.exec_output.encode())
        status = {"status": "Success"} if self.exec_output else {"status": "Failure"}
        await channels.send_bytes(b"\x03" + json.dumps(status).encode())
        await channels.close()
        return channels

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Path]:
        """Start the server and return a kubeconfig for it."""
        started, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def run_server() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(run_server(),))
        thread.start()
        assert started.wait(10)
        try:
            yield write_kubeconfig(folder, self.port)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


def _parse_path(parts: list[str]) -> tuple[str, str | None, str]:
    """Resource (with subresource), namespace and name in a path without its root."""
    rest = parts[1:] if parts[0] == "v1" else parts[2:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = [*rest, "", ""][:3]
    return (f"{resource}/{subresource}" if subresource else resource), namespace, name


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)
