"""Set every default of a spec, in one place. The resulting Server has no open values."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mlflow_operator import api
from mlflow_operator.api import artifacts as api_artifacts
from mlflow_operator.api import backup as api_backup
from mlflow_operator.api import database as api_database
from mlflow_operator.api.artifacts import BucketCreation, Engine
from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.api.duration import parse_duration
from mlflow_operator.api.encryption import Encryption
from mlflow_operator.api.garbage_collection import GarbageCollection as GarbageCollectionSpec
from mlflow_operator.api.garbage_collection import GarbageCollectionMode
from mlflow_operator.api.mlflowserver import StorageChangePolicy
from mlflow_operator.api.model import Model
from mlflow_operator.api.restore import MissingKeyPolicy, RestoreFrom
from mlflow_operator.api.upgrade import BackupBeforeMigration, UpgradeStrategy
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import (
    allowed_hosts,
    artifact_store,
    authentication,
    bucket_settings,
    cloudnativepg,
    encryption,
    pod_template,
    provisioning,
    upload_arguments,
)
from mlflow_operator.model import deployment as deployments
from mlflow_operator.model import resources as sizing
from mlflow_operator.model import secrets as credentials
from mlflow_operator.model.platform import PlatformUse
from mlflow_operator.model.server import (
    AdminCredentials,
    Artifacts,
    Backup,
    ClusterDatabase,
    Database,
    EmbeddedArtifactStore,
    EmbeddedDatabase,
    ExternalDatabase,
    GarbageCollection,
    ObjectStore,
    ProvisionedDatabase,
    Restore,
    SecretKey,
    Server,
    ServerRef,
    ServiceSettings,
    UnmanagedStore,
    Volume,
)
from mlflow_operator.model.versions import DEFAULT_VERSION, FAST_PATH_VERSIONS, Images

EMBEDDED_BUCKET = "mlflow"


@dataclass(frozen=True)
class ClusterDefaults:
    """Inputs of `resolve` in addition to the spec: settings of the operator, and the observed Service and Deployment.

    `service_addresses`: host names and IP addresses of the load balancer, and cluster IPs that are not private.
    `deployed_version`: the MLflow version of an existing Deployment with a default image. It replaces a
    `status.version` that was lost, for example by the restore of a cluster backup.
    `env_from_variables`: names of the variables that `spec.envFrom` sets.
    `encryption_keys`: keys of the generated Secret with the encryption keys, None if it is unknown.
    `default_version`: the MLflow version of a server that sets none and does not run yet.
    """

    images: Images
    cluster_domain: str = "cluster.local"
    node_ports: tuple[int, ...] = ()
    service_addresses: tuple[str, ...] = ()
    deployed_version: str | None = None
    env_from_variables: frozenset[str] = frozenset()
    encryption_keys: frozenset[str] | None = None
    default_version: str = DEFAULT_VERSION

    def with_encryption(self, secret: Object | None, env_from_variables: frozenset[str]) -> "ClusterDefaults":
        """The defaults with the keys of the observed generated Secret, and the variables that `spec.envFrom` sets."""
        keys = frozenset(secret.get("data") or ()) if secret else frozenset()
        return replace(self, encryption_keys=keys, env_from_variables=env_from_variables)


def cluster_defaults(
    images: Images, cluster_domain: str, service: Object | None, deployment: Object | None = None
) -> ClusterDefaults:
    """Read the defaults from the observed Service and Deployment; None if they do not exist yet."""
    spec, status = (service or {}).get("spec") or {}, (service or {}).get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    return ClusterDefaults(
        images,
        cluster_domain,
        tuple(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")),
        tuple(sorted(point[key] for point in ingress for key in ("hostname", "ip") if point.get(key)))
        + public_cluster_ips(service),
        images.version_of(deployments.image_of(deployment)) if deployment else None,
    )


def public_cluster_ips(service: Object | None) -> tuple[str, ...]:
    """Return the cluster IPs of a Service that are in no private range: some cloud providers use other ranges.

    Private ones are accepted in every cluster. If they were listed, a new cluster IP would restart the pods.
    """
    addresses = ((service or {}).get("spec") or {}).get("clusterIPs") or ()
    return tuple(each for each in addresses if each != "None" and not allowed_hosts.is_private(each))


def resolve(
    resource: api.MLflowServer, defaults: ClusterDefaults, platform: PlatformUse | None = None
) -> Server:
    """Return the Server that `resource` specifies. `platform`: what it uses of a platform."""
    spec, meta = resource.spec, resource.metadata
    owner = ServerRef(meta.name, meta.namespace, meta.uid)
    version = spec.version or resource.status.version or defaults.deployed_version or defaults.default_version
    job_execution = spec.job_execution.value == "Enabled"
    default_image = defaults.images.server(version)
    is_default_image = not spec.image or defaults.images.is_server(spec.image, version)
    env = pod_template.manifests(spec.env)
    max_connections = provisioning.embedded_max_connections(
        spec.replicas, spec.workers, job_execution=job_execution, env=env
    )
    hosts = [
        *allowed_hosts.service_names(owner.names.service, owner.namespace, defaults.cluster_domain),
        *(spec.allowed_hosts or ()),
        *defaults.service_addresses,
    ]
    platform_store = platform.server_store(owner, env) if platform else None
    database = (platform.server_database(owner) if platform else None) or _database(
        owner, spec.database, defaults.images, max_connections
    )
    max_platform_connections = database.max_connections if isinstance(database, ProvisionedDatabase) else None
    replicas = 0 if spec.suspend else spec.replicas
    artifacts = (
        Artifacts(platform_store, None, spec.artifacts.access)
        if platform_store
        else _artifacts(owner, spec.artifacts, defaults.images, env)
    )
    # The fast path's application is part of the plugins that are mounted for proxied artifacts.
    fast_path = is_default_image and artifacts.proxied and version in FAST_PATH_VERSIONS
    return Server(
        owner=owner,
        version=version,
        image=spec.image or default_image,
        is_default_image=is_default_image,
        version_is_explicit=bool(spec.version) or is_default_image,
        version_is_default=not (spec.version or spec.image or resource.status.version),
        fast_path=fast_path,
        pull_policy=spec.image_pull_policy.value,
        replicas=replicas,
        suspended=spec.suspend,
        workers=spec.workers,
        job_execution=job_execution,
        telemetry=spec.telemetry.value == "Enabled",
        assistant=spec.assistant.value == "Enabled",
        allowed_hosts=allowed_hosts.allowed_hosts(hosts),
        allowed_origins=allowed_hosts.allowed_origins(hosts, defaults.node_ports),
        explicit_resources=_manifest(spec.resources),
        resources=_manifest(spec.resources)
        or sizing.server(spec.workers, job_execution, fast_path=fast_path),
        env=env,
        env_from=pod_template.manifests(spec.env_from),
        volume_mounts=pod_template.manifests(spec.volume_mounts),
        pods=pod_template.resolve(spec.pod_template),
        service=ServiceSettings(spec.service.type.value, spec.service.port, dict(spec.service.annotations)),
        database=database,
        artifacts=artifacts,
        encryption=encryption.resolve(
            owner,
            spec.encryption or Encryption(),
            {variable.name for variable in spec.env} | defaults.env_from_variables,
            defaults.encryption_keys,
            _utc(spec.encryption.rotate_passphrase_at) if spec.encryption else None,
        ),
        recreate_on_migration=spec.upgrade.strategy is UpgradeStrategy.RECREATE,
        backup=_backup(spec.backup, database, artifacts, defaults.images) if spec.backup else None,
        backup_before_migration=spec.backup is not None
        and spec.upgrade.backup_before_migration is not BackupBeforeMigration.SKIP,
        restore=_restore(owner, spec.restore_from, database, artifacts, defaults.images),
        garbage_collection=_garbage_collection(spec.garbage_collection),
        storage_change_allowed=spec.storage_change_policy is StorageChangePolicy.ALLOW,
        rotation_requested_at=_utc(spec.rotate_credentials_at),
        pool=provisioning.limited_pool(
            max_platform_connections, replicas, spec.workers, job_execution=job_execution, env=env
        )
        if max_platform_connections
        else None,
        auth=authentication.resolve(owner, spec.auth),
        declines_auth=spec.auth is not None and not spec.auth.is_basic,
    )


def _utc(time: datetime | None) -> str | None:
    if time is None:
        return None
    try:
        time = time.astimezone(UTC)
    except OverflowError:
        # In the year 1 or 9999, where a day more or less is irrelevant.
        time = time.replace(tzinfo=UTC)
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _garbage_collection(spec: GarbageCollectionSpec | None) -> GarbageCollection | None:
    if spec is None:
        return None
    traces = spec.traces.older_than
    return GarbageCollection(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        older_than_seconds=int(parse_duration(spec.older_than).total_seconds()),
        traces_older_than_seconds=None if traces is None else int(parse_duration(traces).total_seconds()),
        experiments=tuple(sorted(spec.experiment_ids)),
        dry_run=spec.mode is GarbageCollectionMode.DRY_RUN,
    )


def _database(
    owner: ServerRef, spec: api_database.Database, images: Images, max_connections: int
) -> Database:
    if spec.external:
        return _external(spec.external)
    if spec.provision:
        return _provisioned(owner, spec.provision)
    if spec.cloud_native_pg:
        return _cloudnativepg_cluster(spec.cloud_native_pg)
    embedded = spec.embedded or api_database.EmbeddedDatabase()
    return EmbeddedDatabase(
        image=embedded.image or images.postgres,
        volume=Volume(embedded.storage.size, embedded.storage.storage_class_name),
        resources=_manifest(embedded.resources) or sizing.postgres(),
        host=f"{owner.names.postgres}.{owner.namespace}.svc",
        max_connections=max_connections,
    )


def _external(spec: api_database.ExternalDatabase) -> ExternalDatabase:
    field = "spec.database.external"
    tls = spec.tls or api_database.DatabaseTLS()
    uri, keys = spec.uri_secret_ref, spec.credentials_secret_ref
    ref_field = f"{field}.credentialsSecretRef"
    return ExternalDatabase(
        uri=SecretKey(uri.name, uri.key, f"{field}.uriSecretRef") if uri else None,
        host=spec.host or "",
        port=spec.port,
        database=spec.database_name,
        username=SecretKey(keys.name, keys.username_key, ref_field) if keys else None,
        password=SecretKey(keys.name, keys.password_key, ref_field) if keys else None,
        tls=tls.mode,
        ca=_ca(tls, field),
    )


def _provisioned(owner: ServerRef, spec: api_database.ProvisionedDatabase) -> ProvisionedDatabase:
    field = "spec.database.provision"
    tls, admin = spec.tls or api_database.DatabaseTLS(), spec.admin_secret_ref
    ref_field = f"{field}.adminSecretRef"
    derived = provisioning.derived_name(owner)
    return ProvisionedDatabase(
        host=spec.host,
        port=spec.port,
        database=spec.database_name or derived,
        role=spec.role_name or derived,
        username=SecretKey(admin.name, admin.username_key, ref_field),
        password=SecretKey(admin.name, admin.password_key, ref_field),
        tls=tls.mode,
        ca=_ca(tls, field),
    )


def _cloudnativepg_cluster(spec: api_database.CloudNativePGDatabase) -> ClusterDatabase:
    field = "spec.database.cloudNativePG.clusterName"
    name = spec.cluster_name
    return ClusterDatabase(
        cluster=name,
        database=spec.database_name,
        secret=cloudnativepg.credentials_secret(name),
        host=cloudnativepg.primary_host(name),
        port=cloudnativepg.PORT,
        tls=DatabaseTLSMode.VERIFY_CA,
        ca=SecretKey(cloudnativepg.ca_secret(name), "ca.crt", field),
    )


def _ca(tls: api_database.DatabaseTLS, field: str) -> SecretKey | None:
    ca_ref = tls.ca_secret_ref
    return SecretKey(ca_ref.name, ca_ref.key, f"{field}.tls.caSecretRef") if ca_ref else None


def _artifacts(
    owner: ServerRef, spec: api_artifacts.Artifacts, images: Images, env: tuple[Object, ...]
) -> Artifacts:
    access = spec.access
    if spec.s3:
        return Artifacts(_s3(owner, spec.s3, env), None, access)
    if spec.external:
        return Artifacts(UnmanagedStore(spec.external.uri), None, access)
    embedded = spec.embedded or api_artifacts.EmbeddedArtifactStore()
    engine, field = embedded.engine, "spec.artifacts.embedded"
    server_keys, root_keys = (
        [SecretKey(owner.names.artifacts_secret, key, field) for key in pair]
        for pair in (credentials.SERVER_ACCESS_KEY_FIELDS, credentials.ACCESS_KEY_FIELDS)
    )
    image = images.minio if engine is Engine.MINIO else images.seaweedfs
    return Artifacts(
        store=ObjectStore(
            endpoint=artifact_store.endpoint(owner),
            region="us-east-1",
            bucket=EMBEDDED_BUCKET,
            prefix="",
            addressing_style="path",
            bucket_creation=BucketCreation.IF_MISSING,
            access_key=server_keys[0],
            secret_key=server_keys[1],
            ca=None,
        ),
        embedded=EmbeddedArtifactStore(
            engine=engine,
            image=embedded.image or image,
            volume=Volume(embedded.storage.size, embedded.storage.storage_class_name),
            resources=_manifest(embedded.resources) or sizing.artifact_store(),
            root_credentials=AdminCredentials(*root_keys),
        ),
        access=access,
    )


def _backup(
    spec: api_backup.Backup, database: Database, artifacts: Artifacts, images: Images
) -> Backup | None:
    store = backup_store(spec.s3, "spec.backup.s3") if spec.s3 else artifacts.s3
    if store is None:
        return None  # a validation rule of the CRD rejects this
    return Backup(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        image=spec.image or _postgres_image(database, images),
        max_count=spec.retention.max_count,
        max_age_seconds=int(parse_duration(spec.retention.max_age).total_seconds()),
        store=store,
        separate_bucket=spec.s3 is not None,
    )


def _restore(
    owner: ServerRef, spec: RestoreFrom | None, database: Database, artifacts: Artifacts, images: Images
) -> Restore | None:
    if spec is None:
        return None
    store = backup_store(spec.s3, "spec.restoreFrom.s3") if spec.s3 else artifacts.s3
    if store is None:
        return None  # a validation rule of the CRD rejects this
    return Restore(
        backup=spec.backup,
        namespace=spec.namespace or owner.namespace,
        server=spec.server_name,
        image=spec.image or _postgres_image(database, images),
        store=store,
        separate_bucket=spec.s3 is not None,
        ignores_missing_keys=spec.missing_key_policy is MissingKeyPolicy.IGNORE,
    )


def _postgres_image(database: Database, images: Images) -> str:
    """The image whose pg_dump and pg_restore match the database, as far as its version is known."""
    return database.image if isinstance(database, EmbeddedDatabase) else images.postgres


def backup_store(spec: api_backup.BackupStore, field: str) -> ObjectStore:
    """Resolve a bucket for backups. `field` is its path in the spec."""
    ca_ref, keys = spec.tls.ca_secret_ref if spec.tls else None, spec.credentials_secret_ref
    ref_field = f"{field}.credentialsSecretRef"
    return ObjectStore(
        endpoint=spec.endpoint,
        region=spec.region,
        bucket=spec.bucket,
        prefix=(spec.prefix or "").strip("/"),
        addressing_style=spec.addressing_style.value.lower(),
        bucket_creation=spec.bucket_creation,
        access_key=SecretKey(keys.name, keys.access_key_id_key, ref_field) if keys else None,
        secret_key=SecretKey(keys.name, keys.secret_access_key_key, ref_field) if keys else None,
        ca=SecretKey(ca_ref.name, ca_ref.key, f"{field}.tls.caSecretRef") if ca_ref else None,
        upload_arguments=upload_arguments.merge(bucket_settings.upload_encryption(spec.encryption), ()),
    )


def _s3(owner: ServerRef, spec: api_artifacts.S3, env: tuple[Object, ...]) -> ObjectStore:
    field = "spec.artifacts.s3"
    ca_ref = spec.tls.ca_secret_ref if spec.tls else None
    access_key, secret_key, admin = _s3_keys(owner, spec, field)
    return ObjectStore(
        endpoint=spec.endpoint,
        region=spec.region,
        bucket=spec.bucket,
        prefix=(spec.prefix or "").strip("/"),
        addressing_style=spec.addressing_style.value.lower(),
        bucket_creation=spec.bucket_creation,
        access_key=access_key,
        secret_key=secret_key,
        ca=SecretKey(ca_ref.name, ca_ref.key, f"{field}.tls.caSecretRef") if ca_ref else None,
        public_endpoint=spec.public_endpoint,
        admin=admin,
        settings=bucket_settings.resolve(spec),
        upload_arguments=upload_arguments.merge(bucket_settings.upload_encryption(spec.encryption), env),
    )


def _s3_keys(
    owner: ServerRef, spec: api_artifacts.S3, field: str
) -> tuple[SecretKey | None, SecretKey | None, AdminCredentials | None]:
    """Access key and secret key of the server, and the administrator's credentials if the operator creates the keys."""
    admin, keys = spec.admin_secret_ref, spec.credentials_secret_ref
    if admin:
        ref_field, secret = f"{field}.adminSecretRef", owner.names.artifacts_secret
        return (
            SecretKey(secret, credentials.ACCESS_KEY_FIELDS[0], ref_field),
            SecretKey(secret, credentials.ACCESS_KEY_FIELDS[1], ref_field),
            AdminCredentials(
                SecretKey(admin.name, admin.access_key_id_key, ref_field),
                SecretKey(admin.name, admin.secret_access_key_key, ref_field),
            ),
        )
    if keys:
        ref_field = f"{field}.credentialsSecretRef"
        return (
            SecretKey(keys.name, keys.access_key_id_key, ref_field),
            SecretKey(keys.name, keys.secret_access_key_key, ref_field),
            None,
        )
    return None, None, None


def _manifest(part: Model | None) -> Object:
    return {key: value for key, value in part.manifest().items() if value != {}} if part else {}
