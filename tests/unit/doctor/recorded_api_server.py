"""Answers of an API server as they were recorded, to be changed by a test, and a server that gives them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from mlflow_operator.api.crd import custom_resource_definition
from mlflow_operator.kube.objects import Object
from tests.unit.kubeconfig import kubeconfig

ADMIN = "kubernetes-admin"
ACCOUNT = "system:serviceaccount:mlflow-operator:mlflow-operator"
URL = "http://tracking.team-a.svc:5000"
LABELS = {"app.kubernetes.io/name": "mlflow-operator", "app.kubernetes.io/component": "operator"}
_CREATED = "2026-11-01T00:00:00Z"


def definition() -> Object:
    """As the API server gives it back."""
    made: Object = json.loads(json.dumps(custom_resource_definition()))
    accepted = [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]
    return {**made, "status": {"conditions": accepted}}


def deployment(replicas: int = 1, ready: int = 1, version: str = "0.1.0", *args: str) -> Object:
    """The operator's."""
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
    """The operator's, in a state that a container can be in."""
    return {
        "metadata": {"name": "mlflow-operator-6f7c", "namespace": "mlflow-operator", "labels": LABELS},
        "status": {
            "containerStatuses": [{"name": "operator", "ready": "running" in state, "state": state}],
        },
    }


def condition(kind: str, status: str = "True", reason: str = "Ready", message: str = "Well.") -> Object:
    """Of a server's status."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def server(*conditions: Object, **status: Any) -> Object:
    """An MLflowServer that is well, but for these conditions and members of its status."""
    types = (
        "CredentialsReady",
        "DatabaseReady",
        "ArtifactStoreReady",
        "SchemaReady",
        "ServerAvailable",
        "Ready",
    )
    said = {kind: condition(kind) for kind in types} | {one["type"]: one for one in conditions}
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
            "conditions": [*said.values()],
            **status,
        },
    }


@dataclass
class Recorded:
    """What the API server holds, allows and denies; well throughout until a test changes it."""

    servers: list[Object] | None = field(default_factory=lambda: [server()])
    definitions: list[Object] = field(default_factory=lambda: [definition()])
    deployments: list[Object] = field(default_factory=lambda: [deployment()])
    pods: list[Object] = field(default_factory=lambda: [pod(running={})])
    lease: Object | None = field(
        default_factory=lambda: {
            "holderIdentity": "mlflow-operator-6f7c_1a2b",
            "leaseDurationSeconds": 1,
            "renewTime": "2026-11-01T00:00:00.000000Z",
        }
    )
    renewed: bool = True
    me: str = ADMIN
    namespaces: set[str] = field(default_factory=lambda: {"team-a"})
    forbidden: set[str] = field(default_factory=set)
    """Kinds (plural, with the subresource) that may not be got or listed in all namespaces; `impersonate`."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Resource and verb that the operator's account lacks."""
    proxied: tuple[int, Any] = (200, {"experiments": []})
    inside: str = json.dumps({URL: {"status": 200, "error": "", "foreign": False}})
    asked: list[str] = field(default_factory=list)
    spoke_as: set[str] = field(default_factory=set)
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        return await self._answer(request, request.path.split("/")[2:])

    async def _answer(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        kind, namespace, name = _address(parts)
        if kind.startswith("selfsubject"):
            return await self._review(request, kind)
        if kind in self.forbidden:
            return _status(403, "Forbidden", f"{kind} is forbidden")
        if kind == "pods/exec":
            return await self._exec(request)
        if kind == "services/proxy":
            return web.json_response(self.proxied[1], status=self.proxied[0])
        return self._held(kind, namespace, name)

    def _held(self, kind: str, namespace: str | None, name: str) -> web.Response:
        if kind == "leases":
            return self._lease()
        held = {
            "mlflowservers": self.servers,
            "deployments": self.deployments,
            "pods": self.pods,
            "customresourcedefinitions": self.definitions,
            "namespaces": [{"metadata": {"name": one}} for one in self.namespaces],
        }[kind]
        if held is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        found = [one for one in held if namespace in (None, one["metadata"].get("namespace"))]
        if not name:
            return web.json_response({"items": found})
        named = [one for one in found if one["metadata"]["name"] == name]
        return web.json_response(named[0]) if named else _status(404, "NotFound", "no such object")

    async def _review(self, request: web.Request, kind: str) -> web.Response:
        body = await request.json()
        speaks_as = request.headers.get("Impersonate-User")
        if kind == "selfsubjectreviews":
            return web.json_response({**body, "status": {"userInfo": {"username": self.me}}}, status=201)
        if speaks_as:
            self.spoke_as.add(speaks_as)
            if "impersonate" in self.forbidden:
                return _status(403, "Forbidden", f"cannot impersonate {speaks_as}")
        wanted = body["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (wanted["resource"], wanted["subresource"]) if part)
        allowed = (resource, wanted["verb"]) not in self.denied
        return web.json_response({**body, "status": {"allowed": allowed}}, status=201)

    def _lease(self) -> web.Response:
        if self.lease is None:
            return _status(404, "NotFound", "no such lease")
        held = dict(self.lease)
        if self.renewed:
            self.lease["renewTime"] += "0"
        return web.json_response({"spec": held})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        channels = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await channels.prepare(request)
        self.asked.append("run " + " ".join(request.query.getall("command")))
        await channels.send_bytes(b"\x01" + self.inside.encode())
        ended = {"status": "Success"} if self.inside else {"status": "Failure"}
        await channels.send_bytes(b"\x03" + json.dumps(ended).encode())
        await channels.close()
        return channels

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Path]:
        """Gives a kubeconfig for it."""
        started, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert started.wait(10)
        try:
            yield kubeconfig(folder, self.port)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


def _address(parts: list[str]) -> tuple[str, str | None, str]:
    """Kind with its subresource, namespace and name of a path without its root."""
    rest = parts[1:] if parts[0] == "v1" else parts[2:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind, name, below = [*rest, "", ""][:3]
    return (f"{kind}/{below}" if below else kind), namespace, name


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)
