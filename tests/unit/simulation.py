"""A simulated cluster in memory: API server, controllers that run pods and Jobs, a database, and an object store.

Only for failures and intermediate states that cannot be produced at will in a real cluster; the e2e tests cover the
rest.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mlflow_operator import api
from mlflow_operator.clients.ca_files import CAFiles
from mlflow_operator.clients.dns import Resolver
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.client import DatabaseState, Postgres
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.clients.postgres.roles import PostgresRoles
from mlflow_operator.clients.s3.minio_admin import Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.framework.dependencies import Dependencies, Timeouts
from mlflow_operator.framework.reconcile_result import ReconcileResult
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import Applier
from mlflow_operator.kube.errors import Conflict, Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.model import authentication, encryption, secrets
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.versions import AUTH_SCHEMA_HEADS, DEFAULT_VERSION, SCHEMA_HEADS, Images
from mlflow_operator.reconciler import reconcile
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from mlflow_operator.status.metrics import Metrics
from tests.unit.fake_kubernetes import FakeKubernetesClient

NAMESPACE, NAME = "team", "a"
URI = "postgresql://u:hunter2@{host}/mlflow"
EXTERNAL: Object = {
    "database": {"external": {"uriSecretRef": {"name": "db"}}},
    "artifacts": {
        "s3": {"bucket": "models", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "keys"}}
    },
}


class ProcessKilled(BaseException):
    """Simulates a killed process. Not an Exception, so that the operator does not catch it."""


class FakeAPIServer(FakeKubernetesClient):
    """An API server with lists, the status subresource, garbage collection, and simulated crashes and errors."""

    crash_after_writes: int | None = None
    """Number of writes after which the next write raises ProcessKilled."""

    def __init__(self) -> None:
        super().__init__()
        self.errors_by_kind: dict[str, Exception] = {}
        """Errors raised by writes of objects of a kind; for `Event`, by lists."""
        self.events: dict[str, list[Object]] = {}
        """Events of Kubernetes' controllers by the uid of their object."""
        self.reads: list[str] = []
        """Requests for one object: kind and name."""
        self.lists: list[str] = []
        """Requests for all objects of a kind."""
        self.before_next_list: Callable[[], None] | None = None
        """Another client's changes after the operator has read the server, and before it lists its objects."""

    async def get(
        self, kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        """Return an object; None if there is none."""
        self.reads.append(f"{kind.kind}/{name}")
        return await super().get(kind, namespace, name, limit)

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        *,
        limit: ReadLimit | None = None,
        names: Collection[str] | None = None,
    ) -> list[Object]:
        """Return the objects of a kind that have the labels, or the Events of an object.

        Refuses to list Secrets, like the API server with the chart's roles.
        """
        self.lists.append(kind.kind)
        if kind == kinds.SECRET:
            raise Forbidden("list secrets: 403")
        if self.before_next_list and kind != kinds.MLFLOWPLATFORM:
            change, self.before_next_list = self.before_next_list, None
            change()
        if kind == kinds.EVENT:
            if "Event" in self.errors_by_kind:
                raise self.errors_by_kind["Event"]
            return self.events.get(fields.removeprefix("involvedObject.uid="), [])
        pairs = [pair for pair in labels.split(",") if pair]
        selector = dict(pair.split("=") for pair in pairs if "!=" not in pair)
        excluded = dict(pair.split("!=") for pair in pairs if "!=" in pair)
        phases = {field.removeprefix("status.phase!=") for field in fields.split(",")}
        objects = [
            await FakeKubernetesClient.get(self, kind, namespace, name)
            for (kind_name, name) in self.objects
            if kind_name == kind.kind
        ]
        found = [
            o
            for o in objects
            if o
            and selector.items() <= o["metadata"].get("labels", {}).items()
            and not excluded.items() & o["metadata"].get("labels", {}).items()
            and (o.get("status") or {}).get("phase") not in phases
        ]
        if limit is not None:
            limit.take(json.dumps(found).encode(), f"list {kind.plural}")
        return [obj for obj in found if names is None or obj["metadata"]["name"] in names]

    async def list_labels(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Return the labels of all objects of a kind."""
        return {obj["metadata"]["name"]: obj["metadata"].get("labels", {}) for obj in await self.list(kind)}

    async def list_creation_times(self, kind: Kind, namespace: str) -> dict[str, str]:
        """Return the creation times of all objects of a kind."""
        found = await self.list(kind, namespace)
        return {obj["metadata"]["name"]: obj["metadata"].get("creationTimestamp", "") for obj in found}

    async def apply_status(self, obj: Object) -> Object:
        """Replace the status. Raises Conflict for another resourceVersion than the stored one."""
        self._record_write("apply_status", obj)
        stored_version = self.objects[obj["kind"], obj["metadata"]["name"]]["metadata"].get("resourceVersion")
        if obj["metadata"].get("resourceVersion", stored_version) != stored_version:
            raise Conflict(f"apply status of {obj['kind']}: 409")
        return self.edit(
            obj["kind"], obj["metadata"]["name"], lambda stored: stored.update(status=obj["status"])
        )

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, operations: Sequence[Object]
    ) -> Object:
        """Patch an object. Deletes a terminating server when its last finalizer is removed."""
        patched = await super().json_patch(kind, namespace, name, operations)
        meta = patched["metadata"]
        if kind == kinds.MLFLOWSERVER and meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self.garbage_collect(name)
        return patched

    def garbage_collect(self, name: str) -> None:
        """Delete a server and, like Kubernetes' garbage collector, the objects that it owns."""
        uid = self.objects.pop((api.KIND, name))["metadata"]["uid"]
        for key, obj in list(self.objects.items()):
            if any(r["uid"] == uid for r in obj["metadata"].get("ownerReferences", ())):
                del self.objects[key]

    def orphan(self, name: str) -> None:
        """Delete a server, and keep the objects that it owns, without their owner."""
        uid = self.objects.pop((api.KIND, name))["metadata"]["uid"]
        for obj in self.objects.values():
            references = obj["metadata"].get("ownerReferences", ())
            obj["metadata"]["ownerReferences"] = [r for r in references if r["uid"] != uid]

    def _record_write(self, verb: str, obj: Object) -> None:
        if self.crash_after_writes is not None and len(self.writes) >= self.crash_after_writes:
            raise ProcessKilled
        if obj["kind"] in self.errors_by_kind:
            raise self.errors_by_kind[obj["kind"]]
        super()._record_write(verb, obj)


@dataclass
class FakeEvents:
    """Records the published Events as (is normal, reason, message)."""

    published: list[tuple[bool, str, str]] = field(default_factory=list)

    async def publish(self, involved_object: Object, normal: bool, reason: str, message: str) -> None:
        """Record the Event."""
        self.published.append((normal, reason, message))


@dataclass
class FakeObjectStore:
    """An object store that accepts all requests unless `error` is set."""

    error: ReconcileError | None = None
    checked_buckets: list[Any] = field(default_factory=list)
    applied_settings: list[Any] = field(default_factory=list)
    settings_error: ReconcileError | None = None

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Succeed unless `error` is set."""
        self.checked_buckets.append(bucket)
        if self.error:
            raise self.error
        return False

    async def check_access(self, bucket: Any) -> None:
        """Succeed."""

    async def apply_settings(self, bucket: Any, settings: Any, rule_id: str, rule: Object | None) -> None:
        """Record the settings, unless `settings_error` is set."""
        if self.settings_error:
            raise self.settings_error
        self.applied_settings.append((bucket, settings, rule))


class FakeStoreAdmin:
    """The admin clients of MinIO and SeaweedFS: the store accepts all requests and has every access key.

    `ensure_key` and `delete_key` call `ensure_user` and `delete_user`, so that a subclass overrides only these two.
    """

    async def check(self, admin: Admin) -> None:
        """Check the administrator: succeed."""

    async def ensure_user(
        self,
        admin: Admin,
        user: AccessKey,
        policy_name: str,
        policy: Object,
        ownership: Ownership | None = None,
    ) -> None:
        """Create or update a user: succeed."""

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Delete a user: succeed."""

    async def delete_policy(self, admin: Admin, policy_name: str) -> None:
        """Delete a policy: succeed."""

    async def ensure_key(self, admin: Admin, key: AccessKey, user: str, policy: Object) -> None:
        """Create or update an access key of a user of SeaweedFS."""
        await self.ensure_user(admin, key, user, policy)

    async def has_key(self, admin: Admin, access_key_id: str, user: str) -> bool:
        """Whether a user of SeaweedFS has this access key."""
        return True

    async def delete_key(self, admin: Admin, access_key_id: str, user: str) -> None:
        """Delete an access key of a user of SeaweedFS."""
        await self.delete_user(admin, access_key_id, user)


@dataclass
class FakePostgres(Postgres):
    """The database that all connections lead to. It accepts every login unless `error` is set."""

    error: ReconcileError | None = None
    revision: str | None = None
    """Schema revision; None without tables."""
    table_comment: str | None = None
    obstacle: ConfigurationError | None = None
    major: int = 0
    encrypted: EncryptedSecrets = field(default_factory=EncryptedSecrets)
    is_locked: bool = False
    """Whether a migration locks the tables with encrypted secrets."""
    connections: list[Connection] = field(default_factory=list)
    """The inspected connections."""
    accounts: Accounts = field(default_factory=Accounts)
    account_reads: int = 0
    """How often the accounts were requested."""

    async def inspect(
        self,
        connection: Connection,
        ca_path: str | None,
        field: str,
        expected_revision: str | None = None,
        *,
        administrator: str | None = None,
    ) -> DatabaseState:
        """Record the connection and return the state of the database."""
        self.connections.append(connection)
        if self.error:
            raise self.error
        return DatabaseState(
            "UTF8",
            self.revision,
            f"{connection.host}#1",
            self.obstacle,
            table_comment=self.table_comment if self.revision else None,
            major=self.major,
            encrypted=self._stored_secrets(),
            accounts=self._accounts(administrator),
        )

    def _accounts(self, administrator: str | None) -> Accounts | None:
        if administrator is None:
            return None
        self.account_reads += 1
        return None if self.is_locked else self.accounts

    def _stored_secrets(self) -> EncryptedSecrets | None:
        if self.is_locked:
            return None
        return self.encrypted if self.revision else EncryptedSecrets()

    async def create_database(self, connection: Connection, field: str) -> None:
        """Succeed."""


@dataclass
class FakePostgresAdmin(PostgresAdmin):
    """A shared Postgres with logins and one provisioned database.

    `attempts` counts the calls of `provision`, `checked` contains the connections that were checked.
    """

    password: str = "admin-password"
    logins: dict[str, str] = field(default_factory=dict)
    database: DatabasePlan | None = None
    error: ReconcileError | None = None
    attempts: int = 0
    checked: list[Connection] = field(default_factory=list)

    async def check(self, admin: Connection, ca_path: str | None, field: str) -> None:
        """Behave like the client."""
        self.checked.append(admin)
        self._log_in(admin, field)
        if self.error:
            raise self.error

    def _log_in(self, admin: Connection, field: str) -> None:
        if admin.password != self.password:
            raise from_psycopg(
                Exception("password authentication failed"), "shared:5432", f"{field}.adminSecretRef"
            )

    async def provision(
        self,
        admin: Connection,
        ca_path: str | None,
        plan: DatabasePlan,
        login: Login,
        field: str,
        *,
        create: bool = True,
    ) -> None:
        """Behave like the client."""
        self.attempts += 1
        self._log_in(admin, field)
        if self.error:
            raise self.error
        if self.database is None and not create:
            raise ConfigurationError(Reason.DATABASE_LOST, f'The database "{plan.database}" is gone.')
        self.database = plan
        self.logins[login.name] = login.password

    async def ensure_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, login: Login, field: str
    ) -> None:
        """Behave like the client."""
        assert admin.password == self.password
        self.logins[login.name] = login.password

    async def delete_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, login_name: str, field: str
    ) -> None:
        """Behave like the client."""
        assert admin.password == self.password
        self.logins.pop(login_name, None)

    async def deprovision(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, field: str
    ) -> None:
        """Behave like the client."""
        if self.error:
            raise self.error
        assert self.database is None or plan.role == self.database.role
        self.database = None
        self.logins.clear()


@dataclass
class FakePostgresRoles(PostgresRoles):
    """The logins of an embedded Postgres and their passwords."""

    logins: dict[str, str] = field(default_factory=dict)
    error: TransientError | None = None

    async def ensure_login(self, connection: Connection, owner: str, login: Login, field: str) -> None:
        """Add a login."""
        self.check_login(connection)
        self.logins[login.name] = login.password

    async def delete_login(self, connection: Connection, owner: str, name: str, field: str) -> None:
        """Delete a login."""
        self.check_login(connection)
        assert name != connection.username, "the operator deletes the login that it uses"
        self.logins.pop(name, None)

    def check_login(self, connection: Connection) -> None:
        """Raise AssertionError if the login or its password is invalid."""
        if self.error:
            raise self.error
        assert self.logins.get(connection.username) == connection.password, f"{connection} has no access"


class FakeResolver(Resolver):
    """Resolves the Services in `service_addresses`, which are in the server's namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.service_addresses: dict[str, str] = {}

    async def resolve(self, host: str, namespace: str, domain: str) -> tuple[str, str] | None:
        """Return the FQDN and the address of a Service. `resolve_url` uses this method, too."""
        assert (namespace, domain) == (NAMESPACE, "cluster.local")
        address = self.service_addresses.get(host)
        return (f"{host}.fully-qualified", address) if address else None


class CAFilesWithoutThreads(CAFiles):
    """Writes no files."""

    async def path_of(self, pem: str | None) -> str | None:
        """Return a path."""
        return "/ca.crt" if pem else None


class SimulatedCluster:
    """MLflowServer `team/a` and its environment. The time changes only if a test sets `now`."""

    def __init__(self, spec: Object | None = None) -> None:
        self.api, self.events = FakeAPIServer(), FakeEvents()
        self.applier = Applier(self.api)  # type: ignore[arg-type]
        self.timeouts = Timeouts()
        self.postgres = FakePostgres()
        self.postgres_admin, self.postgres_roles = FakePostgresAdmin(), FakePostgresRoles()
        self.store, self.store_admin = FakeObjectStore(), FakeStoreAdmin()
        self.resolver = FakeResolver()
        self.backup_revision = SCHEMA_HEADS[DEFAULT_VERSION]
        """Schema revision of the tables in a backup."""
        self.now = "2026-01-01T00:00:00Z"
        self._password_numbers, self._uids = itertools.count(1), itertools.count(1)
        self.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.create_server(spec)

    @classmethod
    async def ready(cls, spec: Object | None = None) -> "SimulatedCluster":
        """A Ready and stable server."""
        simulation = cls(spec)
        await simulation.reconcile_until_ready()
        return simulation

    @classmethod
    async def with_external_stores(cls) -> "SimulatedCluster":
        """A Ready and stable server with an external database and an external bucket."""
        simulation = cls(EXTERNAL)
        simulation.put_secret("db", uri=URI.format(host="one"))
        simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
        await simulation.reconcile_until_ready()
        return simulation

    def create_server(self, spec: Object | None = None, name: str = NAME) -> None:
        """Create the MLflowServer as a user, or another one."""
        self.api.put(
            {
                "apiVersion": api.API_VERSION,
                "kind": api.KIND,
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "uid": f"server-{next(self._uids)}",
                    "generation": 1,
                },
                "spec": spec or {},
            }
        )

    def update_spec(self, **spec: Any) -> None:
        """Change the spec as a user."""
        self.api.edit(api.KIND, NAME, lambda obj: obj["spec"].update(spec))

    def delete_server(self) -> None:
        """Delete the MLflowServer as a user. It stays until its finalizers are removed."""
        if self.api.objects[api.KIND, NAME]["metadata"].get("finalizers"):
            self.api.edit(api.KIND, NAME, lambda obj: obj["metadata"].update(deletionTimestamp=self.now))
        else:
            self.api.garbage_collect(NAME)

    async def reconcile(self, deps: Dependencies | None = None) -> ReconcileResult:
        """Run one reconcile as a newly started process, or in the process with these dependencies."""
        return await reconcile((NAMESPACE, NAME), deps or self.dependencies())

    def dependencies(self) -> Dependencies:
        """The dependencies of a reconcile."""
        return Dependencies(
            cluster=self.api,  # type: ignore[arg-type]
            applier=self.applier,
            postgres=self.postgres,
            postgres_admin=self.postgres_admin,
            postgres_roles=self.postgres_roles,
            stores=self.store,  # type: ignore[arg-type]
            minio_admin=self.store_admin,  # type: ignore[arg-type]
            seaweedfs_admin=self.store_admin,  # type: ignore[arg-type]
            resolver=self.resolver,
            ca_files=CAFiles(),
            events=self.events,  # type: ignore[arg-type]
            metrics=Metrics(),
            images=Images(),
            cluster_domain="cluster.local",
            now=lambda: self.now,
            generate_password=lambda: f"password-number-{next(self._password_numbers)}-long-enough",
            timeouts=self.timeouts,
        )

    def process(self) -> Dependencies:
        """The dependencies of one process with a virtual clock, which does not wait for threads."""
        return replace(self.dependencies(), ca_files=CAFilesWithoutThreads())

    def run_controllers(self, *, complete_jobs: bool = True) -> None:
        """Run Kubernetes' controllers once: pods become ready, Jobs complete."""
        for (kind, name), obj in list(self.api.objects.items()):
            if kind == "StatefulSet":
                replicas = obj["spec"]["replicas"]
                self.api.edit(kind, name, partial(dict.update, status={"readyReplicas": replicas}))
            if kind == "Deployment":
                self._run_pods(obj)
            if kind == "Job" and complete_jobs and not obj.get("status"):
                self.finish_job(obj, "Complete")

    def finish_job(self, job: Object, job_condition: str, termination_message: str = "") -> None:
        """Finish a Job and its pod.

        A completed migration upgrades the schema to its head revision, a completed preflight writes its result as the
        termination message, a completed restore creates the tables of the backup, and a completed rewrap changes the
        versions of the gateway secrets. Jobs with the administrator's password set it.
        """
        name = job["metadata"]["name"]
        component = job["metadata"]["labels"][labels.COMPONENT]
        status = {"conditions": [{"type": job_condition, "status": "True", "lastTransitionTime": self.now}]}
        self.api.edit("Job", name, lambda obj: obj.update(status=status))
        image = _first_container(job)["image"]
        if job_condition == "Complete" and component == labels.MIGRATION_POD:
            self.postgres.revision = schema_head_of_image(image)
        if job_condition == "Complete" and component == labels.PREFLIGHT_POD:
            termination_message = termination_message or preflight_result(image, self.postgres.revision)
        if job_condition == "Complete" and component == labels.RESTORE_POD:
            env = {e["name"]: e.get("value", "") for e in _first_container(job)["env"]}
            self.postgres.revision = self.backup_revision
            self.postgres.table_comment = env["RESTORE_MARKER"].format(id="20260101T000000Z-00000001")
        if job_condition == "Complete" and component == labels.REWRAP_POD:
            self._rewrap(job)
        if job_condition == "Complete":
            self._prepare_accounts(job)
        succeeded = job_condition == "Complete"
        self.terminate_container(
            job,
            0 if succeeded else 1,
            termination_message,
            "Succeeded" if succeeded else "Failed",
        )

    def _rewrap(self, job: Object) -> None:
        env = {e["name"]: e.get("value") for e in _first_container(job)["env"]}
        stored, version = self.postgres.encrypted, env.get(encryption.VERSION_ENV)
        if version and stored.passphrase_versions:
            stored = replace(stored, passphrase_versions=frozenset({int(version)}))
        self.postgres.encrypted = stored

    def _prepare_accounts(self, job: Object) -> None:
        env = {e["name"]: e for e in _first_container(job)["env"]}
        if authentication.ADMIN_PASSWORD_ENV in env:
            reference = env[authentication.ADMIN_PASSWORD_ENV]["valueFrom"]["secretKeyRef"]
            password = self.secret(reference["name"])[reference["key"]]
            users = self.postgres.accounts.users or 1
            self.postgres.accounts = Accounts(AUTH_REVISION, users, password_hash(password), True)

    def terminate_container(
        self, job: Object, exit_code: int, termination_message: str, phase: str = "Running"
    ) -> None:
        """Terminate the container of a Job's pod. With the default `phase`, the pod still counts as running."""
        name = job["metadata"]["name"]
        terminated = {"exitCode": exit_code, "message": termination_message}
        self.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{name}-pod",
                    "namespace": NAMESPACE,
                    "labels": labels.for_component(NAME, job["metadata"]["labels"][labels.COMPONENT]),
                    "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}],
                },
                "status": {
                    "phase": phase,
                    "containerStatuses": [
                        {"name": container["name"], "state": {"terminated": terminated}}
                        for container in job["spec"]["template"]["spec"]["containers"]
                    ],
                },
            }
        )

    async def reconcile_until_stable(self, max_reconciles: int = 12) -> None:
        """Alternate between Kubernetes' controllers and reconciles until a reconcile writes nothing."""
        for _ in range(max_reconciles):
            self.run_controllers()
            writes_before = len(self.api.writes)
            await self.reconcile()
            if len(self.api.writes) == writes_before:
                return
        raise AssertionError(f"still writes after {max_reconciles} reconciles: {self.api.writes[-10:]}")

    async def reconcile_until_ready(self) -> None:
        """Reconcile until stable, and check that the server is Ready."""
        await self.reconcile_until_stable()
        assert self.condition("Ready")[0] == "True", self.condition("Ready")

    def get(self, kind: str, name: str) -> Object | None:
        """The stored object; None if there is none."""
        return self.api.objects.get((kind, name))

    def secret(self, name: str) -> dict[str, str]:
        """The values of a Secret."""
        secret = self.get("Secret", name)
        assert secret, f"no Secret {name}"
        return secrets.text_values(secret)

    def put_secret(self, name: str, **values: str) -> None:
        """Create or replace a Secret as a user."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
        meta = {"name": name, "namespace": NAMESPACE}
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    @property
    def status(self) -> Object:
        """The status of the server."""
        server = self.get(api.KIND, NAME)
        assert server
        status: Object = server.get("status") or {}
        return status

    def condition(self, condition_type: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        server = self.get(api.KIND, NAME)
        assert server
        return next(
            (c["status"], c["reason"], c["message"])
            for c in server["status"]["conditions"]
            if c["type"] == condition_type
        )

    def _run_pods(self, deployment: Object) -> None:
        replicas = deployment["spec"]["replicas"]
        name = deployment["metadata"]["name"]
        status = dict.fromkeys(
            ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), replicas
        )
        self.api.edit("Deployment", name, lambda obj: obj.update(status=status))
        if replicas:
            meta = {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": labels.for_component(NAME, labels.SERVER_POD),
                "annotations": deployment["spec"]["template"]["metadata"]["annotations"],
            }
            self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}})
        else:
            self.api.objects.pop((kinds.POD.kind, f"{name}-pod"), None)


AUTH_REVISION = AUTH_SCHEMA_HEADS[DEFAULT_VERSION]


def password_hash(password: str) -> str:
    """A hash in MLflow's format, with parameters that make it quick to compute."""
    digest = hashlib.scrypt(password.encode(), salt=b"salt", n=2, r=1, p=1).hex()
    return f"scrypt:2:1:1$salt${digest}"


def _first_container(job: Object) -> Object:
    container: Object = job["spec"]["template"]["spec"]["containers"][0]
    return container


def version_of_image(image: str) -> str:
    """The MLflow version in an image: from the tag if it has a version tag, else the default version."""
    return image.rpartition(":v")[2].removesuffix("-full") if ":v" in image else DEFAULT_VERSION


def schema_head_of_image(image: str) -> str:
    """The schema revision that the image's migrations upgrade to."""
    return SCHEMA_HEADS[version_of_image(image)]


def preflight_result(image: str, revision: str | None) -> str:
    """The result of a preflight for a database at `revision`. Only revisions of later versions are unknown."""
    head, order = schema_head_of_image(image), list(dict.fromkeys(SCHEMA_HEADS.values()))
    is_newer = revision in order and order.index(revision) > order.index(head)
    change = "none" if revision == head else "unknown" if is_newer else "forward"
    steps = {"none": 0, "unknown": None, "forward": 3}[change]
    version = version_of_image(image)
    result = {"version": version, "revision": revision, "head": head, "change": change, "steps": steps}
    return json.dumps({**result, "errors": []})


DATABASE_UNREACHABLE = TransientError(Reason.DATABASE_UNREACHABLE, "The database does not answer.")
