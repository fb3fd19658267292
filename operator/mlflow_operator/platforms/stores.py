"""Checks of a platform's stores, with the administrator's credentials, and the settings of its bucket."""

from functools import partial
from urllib.parse import urlsplit

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.api.database import VERIFYING_MODES, DatabaseTLSMode
from mlflow_operator.clients.s3 import lifecycle
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.framework.access_keys import read_access_key
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.login_hint import with_login_hint
from mlflow_operator.framework.observe import Reader
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.model import provisioning
from mlflow_operator.model.dns_search import shadowing_service
from mlflow_operator.model.platform import ARTIFACTS_FIELD, DATABASE_FIELD, PlatformDatabase, PlatformStore
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.platforms.checks import Checks
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ConfigurationError, ReconcileError

_TLS_NOTES = {
    DatabaseTLSMode.DISABLE: "Connections are not encrypted, and others in the network can read the password",
    DatabaseTLSMode.PREFER: "Connections may be unencrypted, and others in the network may read the password",
    DatabaseTLSMode.REQUIRE: "The certificate is not verified, and another service can act as the database",
    DatabaseTLSMode.VERIFY_CA: (
        "The host in the certificate is not verified, and each service with a certificate of this CA can act as the "
        "database"
    ),
}
_HTTP_NOTE = (
    f" Connections are not encrypted, and others in the network can read all artifacts. Set {ARTIFACTS_FIELD}.endpoint "
    "to a URL with https://."
)


def _shadowing_note(host: str) -> str:
    """Return a sentence with a leading space about the namespace whose users can receive connections to `host`."""
    shadowing = shadowing_service(host)
    if shadowing is None:
        return ""
    service, namespace = shadowing
    return (
        f" With the DNS search list of the operator's pod, {host} is the {service} in namespace {namespace} if that "
        "exists. Let no tenant create this namespace or Services in it."
    )


class StoreChecks:
    """Checks of one platform's stores. Secrets are read in each reconcile, and a changed one is checked at once."""

    def __init__(self, platform: str, reader: Reader, checks: Checks, deps: Dependencies) -> None:
        self._platform = platform
        self._reader = reader
        self._checks = checks
        self._deps = deps

    async def database(self, database: PlatformDatabase) -> Condition:
        """Return the condition DatabaseReady."""
        condition_type = ConditionType.DATABASE
        try:
            username = await self._reader.value(database.username)
            password = await self._reader.value(database.password)
            ca_path = await self._deps.ca_files.path_of(await self._reader.optional_value(database.ca))
        except (Forbidden, ReconcileError) as error:
            return self._secret_condition(condition_type, error)
        admin = database.admin_connection(provisioning.MAINTENANCE_DATABASE, username, password)
        check = partial(self._check_database, database, admin, ca_path)
        return await self._checks.condition(self._platform, condition_type, (admin, ca_path), check)

    async def artifacts(self, store: PlatformStore) -> Condition:
        """Return the condition ArtifactStoreReady."""
        condition_type = ConditionType.ARTIFACT_STORE
        try:
            key = AccessKey(
                await read_access_key(self._reader, store.admin.access_key),
                await read_access_key(self._reader, store.admin.secret_key),
            )
            ca_path = await self._deps.ca_files.path_of(await self._reader.optional_value(store.ca))
        except (Forbidden, ReconcileError) as error:
            return self._secret_condition(condition_type, error)
        field = store.admin.access_key.field
        bucket = Bucket(
            store.endpoint,
            store.region,
            store.bucket,
            store.addressing_style,
            key.id,
            key.secret,
            ca_path,
            field,
        )
        admin = Admin(store.endpoint, key, ca_path, f"the Secret referenced by {field}")
        check = partial(self._check_store, store, admin, bucket)
        inputs = (admin, bucket, store.bucket_creation, store.common_prefix, store.settings)
        return await self._checks.condition(self._platform, condition_type, inputs, check)

    async def _check_database(
        self, database: PlatformDatabase, admin: Connection, ca_path: str | None
    ) -> str:
        try:
            await self._deps.postgres_admin.check(admin, ca_path, DATABASE_FIELD)
        except ReconcileError as error:
            raise with_login_hint(error, admin) from None
        note = _TLS_NOTES.get(database.tls)
        hint = f" {note}. Set {DATABASE_FIELD}.tls.mode to VerifyFull." if note else ""
        if database.tls not in VERIFYING_MODES:
            hint += _shadowing_note(database.host)
        return f"The administrator can log in and may create roles and databases.{hint}"

    async def _check_store(self, store: PlatformStore, admin: Admin, bucket: Bucket) -> str:
        # The admin API first: a bucket must not be created in a store that cannot be used.
        await self._deps.minio_admin.check(admin)
        await self._deps.stores.ensure_bucket(
            bucket, create=store.bucket_creation is BucketCreation.IF_MISSING
        )
        await self._apply_settings(store, bucket)
        note = ""
        if not store.endpoint.startswith("https://"):
            note = _HTTP_NOTE + _shadowing_note(urlsplit(store.endpoint).hostname or "")
        return f'The bucket "{store.bucket}" is accessible, and the store has the admin API of MinIO.{note}'

    async def _apply_settings(self, store: PlatformStore, bucket: Bucket) -> None:
        """Apply the settings once for all servers. S3 has no partial change of lifecycle rules that many could use."""
        if store.settings.is_managed:
            rule_id = lifecycle.platform_rule_id(self._platform)
            rule = lifecycle.rule(rule_id, store.common_prefix, store.settings)
            await self._deps.stores.apply_settings(bucket, store.settings, rule_id, rule)

    def _secret_condition(
        self, condition_type: ConditionType, error: Forbidden | ReconcileError
    ) -> Condition:
        if isinstance(error, Forbidden):
            error = ConfigurationError(
                Reason.PROVISIONING_DENIED,
                "The operator is not allowed to read the Secrets that this platform references in namespace "
                f"{self._reader.namespace}. Ask the operator's administrator to list them in the value platformSecrets "
                "of its chart.",
            )
        return false_condition(condition_type, error.reason, error.message)
