"""Teams that share an MLflowPlatform: each has a namespace, and a user with the usual permissions in it and no others.

The exploits of the security review run with the permissions of these users.
"""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.model.secrets import text_values
from tests.e2e import namespaces, operator_release, rogue_stores, timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, secret
from tests.e2e.kube import TEST_LABEL, CommandError, Kube, Object
from tests.e2e.server import API_VERSION, SMALL_RESOURCES, Server, eventually, is_ready
from tests.e2e.shared_stores import Platform, policy_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_ANNOTATION = "mlflow-operator.dev/is-default-platform"
OFFER_LABEL = "e2e.mlflow-operator.dev/offer"
"""Label of the namespaces of tenants: the tenancy whose platforms they may use."""

WRITE_SERVERS = f"{operator_release.RELEASE}-edit"
"""ClusterRole of the chart that allows users to write MLflowServers."""

USER_ROLES = ("edit", WRITE_SERVERS)
"""ClusterRoles that a tenant's user has in its own namespace."""

IDLE: Object = {"replicas": 0, "workers": 1, "resources": SMALL_RESOURCES}
"""Part of a spec: the operator prepares the stores, and no server pod uses CPU time."""

UNUSED_SECRET = "unused"
FOREIGN_DATABASE: Object = {
    "external": {"host": "nowhere.invalid", "credentialsSecretRef": {"name": UNUSED_SECRET}}
}
FOREIGN_STORE: Object = {"external": {"uri": "gs://none"}}
"""Stores for a server of which a test needs only the other store."""


@dataclass(frozen=True)
class Tenant:
    """A team. All requests of `kube` have the permissions of the team's user."""

    kube: Kube

    @property
    def namespace(self) -> str:
        """The team's namespace."""
        return self.kube.namespace

    def server(self, name: str = "tracking", **spec: Any) -> Server:
        """Create an idle server with this spec; without stores it uses those of the default platform."""
        return Server(self.kube, name).apply({**IDLE, **spec})

    def try_server(self, name: str, **spec: Any) -> Server | None:
        """Create a server although clients would reject its unknown fields; None if the API server refuses it."""
        metadata = {"name": name, "namespace": self.namespace}
        resource = {
            "apiVersion": API_VERSION,
            "kind": "MLflowServer",
            "metadata": metadata,
            "spec": {**IDLE, **spec},
        }
        try:
            self.kube.kubectl("apply", "--validate=ignore", "-f", "-", stdin=yaml.safe_dump(resource))
        except CommandError as error:
            if "is invalid" not in str(error):
                raise
            return None
        return Server(self.kube, name)


@dataclass(frozen=True)
class Login:
    """A user of a database on the shared Postgres."""

    user: str
    password: str
    database: str

    @staticmethod
    def of(server: Server) -> "Login":
        """Return the generated login of a server."""
        values = text_values(server.kube.require("Secret", server.names.database_secret))
        return Login(values["username"], values["password"], values["dbname"])

    def query(self, stores: Platform, sql: str, database: str = "") -> str:
        """Run a query; returns psql's output, unaligned and tuples only. Raises CommandError with Postgres' error."""
        # not by the socket or loopback, where Postgres trusts every user
        parameters = {
            "host": stores.postgres.host,
            "user": self.user,
            "password": self.password,
            "dbname": database or self.database,
        }
        conninfo = " ".join(f"{name}={value}" for name, value in parameters.items())
        # by standard input, because a password must not be visible in the node's process list
        psql = ("psql", "-v", "ON_ERROR_STOP=1", "-AtqU", stores.postgres.user, "-d", "postgres", "-f", "-")
        return stores.kube.kubectl(
            "exec", "-i", "postgres", "--", *psql, stdin=f'\\connect "{conninfo}"\n{sql}\n'
        )


def access_key(server: Server) -> AccessKey:
    """Return the generated key of a server, which users of its namespace can read."""
    values = text_values(server.kube.require("Secret", server.names.artifacts_secret))
    return AccessKey(values["accessKeyID"], values["secretAccessKey"])


def content(client: "S3Client", bucket: str, key: str) -> bytes | None:
    """Return the content of an object, None if it does not exist."""
    try:
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except client.exceptions.NoSuchKey:
        return None


@dataclass
class Tenancy:
    """Platforms on the shared Postgres and MinIO of the tests, and the tenants that may use them."""

    kube: Kube
    stores: Platform
    name: str = field(default_factory=lambda: f"e2e-offer-{uuid.uuid4().hex[:6]}")
    tenants: list[Tenant] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)

    @property
    def bucket(self) -> str:
        """The bucket of the platforms."""
        return self.name

    def create_tenant(self, user: str, *roles: str) -> Tenant:
        """Create a namespace and a user with these ClusterRoles in it, by default `USER_ROLES`."""
        name = namespaces.create_namespace(self.kube, f"e2e-{user}").namespace
        return self.give_namespace(name, user, *roles)

    def give_namespace(self, name: str, user: str, *roles: str) -> Tenant:
        """Create or change a namespace, and give it to a user."""
        labels = {
            "pod-security.kubernetes.io/enforce": "restricted",
            TEST_LABEL: "true",
            OFFER_LABEL: self.name,
        }
        namespaced_kube = self.kube.in_namespace(name)
        namespaced_kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        )
        bindings = (_binding(role, user) for role in roles or USER_ROLES)
        namespaced_kube.apply(*bindings, secret(UNUSED_SECRET, username="unused", password="unused"))
        tenant = Tenant(namespaced_kube.as_user(user))
        self.tenants.append(tenant)
        return tenant

    def offer(self, name: str = "", *, is_default: bool = False, **changes: Any) -> str:
        """Create or change a platform, and return its name. `changes`: parts of the spec that are merged into it."""
        namespace, platform = self.stores.kube, f"{self.name}{name and '-'}{name}"
        postgres, minio = self.stores.postgres, self.stores.minio
        namespace.apply(
            secret(f"{self.name}-postgres", username=self.stores.admin, password=self.stores.admin_password),
            secret(f"{self.name}-minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
            self.stores.ca_secret(f"{self.name}-ca"),
        )
        spec: Object = {
            "namespaceSelector": {"matchLabels": {OFFER_LABEL: self.name}},
            "policy": {"serviceTypes": ["ClusterIP", "NodePort"]},
            "secretsNamespace": namespace.namespace,
            "database": {
                "postgres": {
                    "host": postgres.host,
                    "adminSecretRef": {"name": f"{self.name}-postgres"},
                    "tls": {"caSecretRef": {"name": f"{self.name}-ca"}},
                }
            },
            "artifacts": {
                "s3": {
                    "endpoint": minio.endpoint,
                    "bucket": self.bucket,
                    "adminSecretRef": {"name": f"{self.name}-minio"},
                }
            },
        }
        annotations = {DEFAULT_ANNOTATION: "true"} if is_default else {}
        metadata = {"name": platform, "annotations": annotations, "labels": {TEST_LABEL: "true"}}
        resource = {"apiVersion": API_VERSION, "kind": "MLflowPlatform", "metadata": metadata}
        self.kube.apply({**resource, "spec": _merged(spec, changes)})
        self.offers.append(platform)
        return platform

    def wait_for_stores(self, server: Server) -> None:
        """Wait until both stores of a server are ready."""
        for condition in ("DatabaseReady", "ArtifactStoreReady"):
            server.wait_for(condition, within=timeouts.STATUS_SECONDS)

    def wait_for_offer(self, platform: str, condition_type: str, status: str, reason: str) -> str:
        """Wait for a condition of a platform; returns its message."""

        def found() -> Object | None:
            resource = self.kube.require("MLflowPlatform", platform)
            conditions = (resource.get("status") or {}).get("conditions") or []
            expected = (condition_type, status, reason)
            matching = [c for c in conditions if (c["type"], c["status"], c["reason"]) == expected]
            return matching[0] if matching else None

        what = f"{condition_type} of {platform} is {status} ({reason})"
        return str(eventually(what, found, timeouts.RESYNC_SECONDS)["message"])

    def prefix(self, server: Server) -> str:
        """Return the prefix of a server's artifacts on the platforms."""
        return f"{server.kube.namespace}/{server.name}/"

    def minio_admin(self) -> Admin:
        """Return MinIO's administrator."""
        key = AccessKey(self.stores.minio.access_key, self.stores.minio.secret_key)
        return Admin(self.stores.minio.endpoint, key, None, "the tests")

    async def policy_resources(self, server: Server) -> set[str]:
        """Return the resources in the policy of a server's key on MinIO."""
        request = AdminRequest("GET", "info-canned-policy", {"name": policy_name(server), "v": "2"})
        response = await MinioAPI(SignedRequests()).call(self.minio_admin(), request)
        assert response.ok, response
        statements = response.content["Policy"]["Statement"]
        return {resource for statement in statements for resource in _as_list(statement["Resource"])}

    def delete(self) -> None:
        """Delete everything without waiting. The operator keeps a platform until its last server is gone."""
        namespaces.delete_namespaces(self.kube, *{tenant.namespace for tenant in self.tenants})
        if self.offers:
            self.kube.kubectl(
                "delete", "mlflowplatforms", *{*self.offers}, "--wait=false", "--ignore-not-found"
            )


@dataclass(frozen=True)
class Rogue:
    """A tenant's pods that run `rogue_stores`, behind the Service at `host`."""

    kube: Kube
    host: str

    def lines(self) -> list[str]:
        """Return what the pods printed: what they received."""
        return self.kube.kubectl("logs", "-l", "app=rogue", "--tail=-1", "--prefix=false").splitlines()

    def received(self, text: str) -> bool:
        """Whether they received a user name, a password or an access key ID."""
        return any(rogue_stores.digest(text) in line for line in self.lines())


def start_rogue(tenant: Tenant, stores: Platform, forged_key: str = "none") -> Rogue:
    """Start pods that run `rogue_stores`, with the permissions of the tenant.

    Two of them have the DNS names, in the tenant's namespace, that the hosts `postgres.<namespace of the stores>` and
    `minio.<namespace of the stores>` mean there: `<hostname>.<headless Service>`.
    """
    program, shadow = Path(rogue_stores.__file__), stores.kube.namespace
    upstream = f"minio.{shadow}.svc:9000"
    tenant.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "rogue"},
            "data": {program.name: program.read_text()},
        },
        *(
            _rogue_pod(tenant.kube, name, shadow, program.name, upstream, forged_key)
            for name in ("postgres", "minio")
        ),
        _rogue_service("rogue"),
        _rogue_service(shadow, clusterIP="None"),
    )
    eventually(
        "the rogue pods are ready",
        lambda: all(is_ready(tenant.kube.require("Pod", name)) for name in ("postgres", "minio")),
        timeouts.READY_SECONDS,
    )
    return Rogue(tenant.kube, f"rogue.{tenant.namespace}.svc")


def _rogue_pod(  # noqa: PLR0917
    kube: Kube, name: str, subdomain: str, program: str, upstream: str, forged_key: str
) -> Object:
    env = {rogue_stores.UPSTREAM: upstream, rogue_stores.FORGED_KEY: forged_key}
    container = {
        "name": "rogue",
        "image": kube.settings.pins["IMAGE_MLFLOW"],
        "command": ["python3", f"/program/{program}"],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "readinessProbe": {"tcpSocket": {"port": rogue_stores.RELAY_PORT}, "periodSeconds": 1},
        "resources": SMALL_RESOURCES,
        "securityContext": {**RESTRICTED_SECURITY_CONTEXT, "runAsUser": 10001},
        "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "rogue"}},
        "spec": {
            "hostname": name,
            "subdomain": subdomain,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": "rogue"}}],
        },
    }


def _rogue_service(name: str, **spec: Any) -> Object:
    ports = [{"name": f"port-{number}", "port": number} for number in rogue_stores.ALL_PORTS]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "rogue"}, "ports": ports, **spec},
    }


def _binding(role: str, user: str) -> Object:
    api_group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api_group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": api_group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": api_group, "kind": "User", "name": user}],
    }


def _merged(obj: Any, change: Any) -> Any:
    """Apply a JSON merge patch: None removes a field."""
    if not isinstance(obj, dict) or not isinstance(change, dict):
        return change
    merged = {**obj, **{key: _merged(obj.get(key), value) for key, value in change.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
