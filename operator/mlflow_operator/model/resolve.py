"""Decides everything a spec leaves open, once. What comes out has no default left to take."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow_operator import api
from mlflow_operator.api import artifacts as api_artifacts
from mlflow_operator.api import backup as api_backup
from mlflow_operator.api import database as api_database
from mlflow_operator.api.bucket_settings import EncryptionType, Versioning
from mlflow_operator.api.duration import seconds
from mlflow_operator.api.garbage_collection import CollectionMode
from mlflow_operator.api.garbage_collection import GarbageCollection as WantedCollection
from mlflow_operator.api.model import Model
from mlflow_operator.api.pods import PodTemplate
from mlflow_operator.api.restore import RestoreFrom
from mlflow_operator.api.upgrade import BackupBeforeMigration, UpgradeStrategy
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import allowed_hosts, artifact_store, cloudnativepg, provisioning
from mlflow_operator.model import resources as sizing
from mlflow_operator.model import secrets as credentials
from mlflow_operator.model.server import (
    Access,
    Artifacts,
    Backup,
    BucketCreation,
    BucketSettings,
    ClusterDatabase,
    Database,
    EmbeddedArtifactStore,
    EmbeddedDatabase,
    Engine,
    ExternalDatabase,
    GarbageCollection,
    ObjectStore,
    PodSettings,
    ProvisionedDatabase,
    Restore,
    SecretKey,
    Server,
    ServerRef,
    ServiceSettings,
    StoreAdmin,
    TLSMode,
    UnmanagedStore,
    Volume,
)
from mlflow_operator.model.versions import DEFAULT_VERSION, FAST_PATH_VERSIONS, Images

EMBEDDED_BUCKET = "mlflow"
_TLS = {
    "Disable": TLSMode.DISABLE,
    "Prefer": TLSMode.PREFER,
    "Require": TLSMode.REQUIRE,
    "VerifyCA": TLSMode.VERIFY_CA,
    "VerifyFull": TLSMode.VERIFY_FULL,
}

_ENCRYPTION = {EncryptionType.SSE_S3: "AES256", EncryptionType.SSE_KMS: "aws:kms"}


@dataclass(frozen=True)
class ClusterDefaults:
    """What decides beside the spec: the operator's settings, and what the cluster gave the server's Service."""

    images: Images
    cluster_domain: str = "cluster.local"
    node_ports: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()


def cluster_defaults(images: Images, cluster_domain: str, service: Object | None) -> ClusterDefaults:
    """Reads the live Service, None where there is none yet."""
    spec, status = (service or {}).get("spec") or {}, (service or {}).get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    return ClusterDefaults(
        images,
        cluster_domain,
        tuple(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")),
        tuple(sorted(point[key] for point in ingress for key in ("hostname", "ip") if point.get(key))),
    )


def resolve(resource: api.MLflowServer, defaults: ClusterDefaults) -> Server:
    """The server that `resource` asks for."""
    spec, meta = resource.spec, resource.metadata
    owner = ServerRef(meta.name, meta.namespace, meta.uid)
    version = spec.version or resource.status.version or DEFAULT_VERSION
    jobs = spec.job_execution.value == "Enabled"
    image = defaults.images.server(version)
    official = not spec.image or spec.image == image
    names = allowed_hosts.service_names(owner.names.service, owner.namespace, defaults.cluster_domain)
    database = _database(owner, spec.database, defaults.images)
    artifacts = _artifacts(owner, spec.artifacts, defaults.images)
    # the application lies among the plugins for proxied artifacts
    direct = official and artifacts.proxied and version in FAST_PATH_VERSIONS
    return Server(
        owner=owner,
        version=version,
        image=spec.image or image,
        is_default_image=official,
        version_is_explicit=bool(spec.version) or official,
        fast_path=direct,
        pull_policy=spec.image_pull_policy.value,
        replicas=0 if spec.suspend else spec.replicas,
        suspended=spec.suspend,
        workers=spec.workers,
        job_execution=jobs,
        allowed_hosts=allowed_hosts.allowed_hosts(
            names, [*(spec.allowed_hosts or ()), *defaults.addresses], defaults.node_ports
        ),
        resources=_manifest(spec.resources) or sizing.server(spec.workers, jobs, once=direct),
        env=_manifests(spec.env),
        env_from=_manifests(spec.env_from),
        volume_mounts=_manifests(spec.volume_mounts),
        pods=_pods(spec.pod_template),
        service=ServiceSettings(spec.service.type.value, spec.service.port, dict(spec.service.annotations)),
        database=database,
        artifacts=artifacts,
        recreate_on_migration=spec.upgrade.strategy is UpgradeStrategy.RECREATE,
        backup=_backup(spec.backup, database, artifacts, defaults.images) if spec.backup else None,
        backup_before_migration=spec.backup is not None
        and spec.upgrade.backup_before_migration is not BackupBeforeMigration.SKIP,
        restore=_restore(owner, spec.restore_from, database, artifacts, defaults.images),
        garbage_collection=_garbage_collection(spec.garbage_collection),
    )


def _garbage_collection(spec: WantedCollection | None) -> GarbageCollection | None:
    if spec is None:
        return None
    traces = spec.traces.older_than
    return GarbageCollection(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        seconds=int(seconds(spec.older_than).total_seconds()),
        traces_seconds=None if traces is None else int(seconds(traces).total_seconds()),
        experiments=tuple(sorted(spec.experiment_ids)),
        dry_run=spec.mode is CollectionMode.DRY_RUN,
    )


def _database(owner: ServerRef, spec: api_database.Database, images: Images) -> Database:
    if spec.external:
        return _external(spec.external)
    if spec.provision:
        return _provisioned(owner, spec.provision)
    if spec.cloud_native_pg:
        return _cluster(spec.cloud_native_pg)
    embedded = spec.embedded or api_database.EmbeddedDatabase()
    return EmbeddedDatabase(
        image=embedded.image or images.postgres,
        volume=Volume(embedded.storage.size, embedded.storage.storage_class_name),
        resources=_manifest(embedded.resources) or sizing.postgres(),
        host=f"{owner.names.postgres}.{owner.namespace}.svc",
    )


def _external(spec: api_database.ExternalDatabase) -> ExternalDatabase:
    field = "spec.database.external"
    tls = spec.tls or api_database.DatabaseTLS()
    uri, keys = spec.uri_secret_ref, spec.credentials_secret_ref
    at = f"{field}.credentialsSecretRef"
    return ExternalDatabase(
        uri=SecretKey(uri.name, uri.key, f"{field}.uriSecretRef") if uri else None,
        host=spec.host or "",
        port=spec.port,
        database=spec.database_name,
        username=SecretKey(keys.name, keys.username_key, at) if keys else None,
        password=SecretKey(keys.name, keys.password_key, at) if keys else None,
        tls=_TLS[tls.mode.value],
        ca=_authority(tls, field),
    )


def _provisioned(owner: ServerRef, spec: api_database.ProvisionedDatabase) -> ProvisionedDatabase:
    field = "spec.database.provision"
    tls, admin = spec.tls or api_database.DatabaseTLS(), spec.admin_secret_ref
    at = f"{field}.adminSecretRef"
    derived = provisioning.derived_name(owner)
    return ProvisionedDatabase(
        host=spec.host,
        port=spec.port,
        database=spec.database_name or derived,
        role=spec.role_name or derived,
        username=SecretKey(admin.name, admin.username_key, at, admin.namespace),
        password=SecretKey(admin.name, admin.password_key, at, admin.namespace),
        tls=_TLS[tls.mode.value],
        ca=_authority(tls, field),
    )


def _cluster(spec: api_database.CloudNativePGDatabase) -> ClusterDatabase:
    field = "spec.database.cloudNativePG.clusterName"
    name = spec.cluster_name
    return ClusterDatabase(
        cluster=name,
        database=spec.database_name,
        secret=cloudnativepg.secret(name),
        host=cloudnativepg.host(name),
        port=cloudnativepg.PORT,
        tls=TLSMode.VERIFY_CA,
        ca=SecretKey(cloudnativepg.authority(name), "ca.crt", field),
    )


def _authority(tls: api_database.DatabaseTLS, field: str) -> SecretKey | None:
    named = tls.ca_secret_ref
    return SecretKey(named.name, named.key, f"{field}.tls.caSecretRef") if named else None


def _artifacts(owner: ServerRef, spec: api_artifacts.Artifacts, images: Images) -> Artifacts:
    access = Access(spec.access.value)
    if spec.s3:
        return Artifacts(_s3(owner, spec.s3), None, access)
    if spec.external:
        return Artifacts(UnmanagedStore(spec.external.uri), None, access)
    embedded = spec.embedded or api_artifacts.EmbeddedArtifactStore()
    engine, field = Engine(embedded.engine.value), "spec.artifacts.embedded"
    own, root = (
        [SecretKey(owner.names.artifacts_secret, key, field) for key in pair]
        for pair in (credentials.OWN_KEY, credentials.STORE_KEY)
    )
    image = images.minio if engine is Engine.MINIO else images.seaweedfs
    return Artifacts(
        store=ObjectStore(
            endpoint=artifact_store.endpoint(owner),
            region="us-east-1",
            bucket=EMBEDDED_BUCKET,
            prefix="",
            addressing_style="path",
            creation=BucketCreation.IF_MISSING,
            access_key=own[0],
            secret_key=own[1],
            ca=None,
        ),
        embedded=EmbeddedArtifactStore(
            engine=engine,
            image=embedded.image or image,
            volume=Volume(embedded.storage.size, embedded.storage.storage_class_name),
            resources=_manifest(embedded.resources) or sizing.artifact_store(),
            root=StoreAdmin(*root),
        ),
        access=access,
    )


def _backup(
    spec: api_backup.Backup, database: Database, artifacts: Artifacts, images: Images
) -> Backup | None:
    store = backup_store(spec.s3, "spec.backup.s3") if spec.s3 else artifacts.s3
    if store is None:
        return None  # a rule refuses it
    return Backup(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        image=spec.image or _programs(database, images),
        max_count=spec.retention.max_count,
        max_age_seconds=int(seconds(spec.retention.max_age).total_seconds()),
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
        return None  # a rule refuses it
    return Restore(
        backup=spec.backup,
        namespace=spec.namespace or owner.namespace,
        server=spec.server_name,
        image=spec.image or _programs(database, images),
        store=store,
        separate_bucket=spec.s3 is not None,
    )


def _programs(database: Database, images: Images) -> str:
    """The image whose pg_dump and pg_restore fit the database, as far as that is known."""
    return database.image if isinstance(database, EmbeddedDatabase) else images.postgres


def backup_store(spec: api_backup.BackupStore, field: str) -> ObjectStore:
    """A bucket for backups; `field` is where the spec names it."""
    authority, keys = spec.tls.ca_secret_ref if spec.tls else None, spec.credentials_secret_ref
    at = f"{field}.credentialsSecretRef"
    return ObjectStore(
        endpoint=spec.endpoint,
        region=spec.region,
        bucket=spec.bucket,
        prefix=(spec.prefix or "").strip("/"),
        addressing_style=spec.addressing_style.value.lower(),
        creation=BucketCreation(spec.bucket_creation.value),
        access_key=SecretKey(keys.name, keys.access_key_id_key, at) if keys else None,
        secret_key=SecretKey(keys.name, keys.secret_access_key_key, at) if keys else None,
        ca=SecretKey(authority.name, authority.key, f"{field}.tls.caSecretRef") if authority else None,
    )


def _s3(owner: ServerRef, spec: api_artifacts.S3) -> ObjectStore:
    field = "spec.artifacts.s3"
    authority = spec.tls.ca_secret_ref if spec.tls else None
    access_key, secret_key, admin = _s3_keys(owner, spec, field)
    return ObjectStore(
        endpoint=spec.endpoint,
        region=spec.region,
        bucket=spec.bucket,
        prefix=(spec.prefix or "").strip("/"),
        addressing_style=spec.addressing_style.value.lower(),
        creation=BucketCreation(spec.bucket_creation.value),
        access_key=access_key,
        secret_key=secret_key,
        ca=SecretKey(authority.name, authority.key, f"{field}.tls.caSecretRef") if authority else None,
        public_endpoint=spec.public_endpoint,
        admin=admin,
        settings=_bucket_settings(spec),
    )


def _s3_keys(
    owner: ServerRef, spec: api_artifacts.S3, field: str
) -> tuple[SecretKey | None, SecretKey | None, StoreAdmin | None]:
    """The server's key, in two parts, and the administrator's, where there is one to make it."""
    admin, keys = spec.admin_secret_ref, spec.credentials_secret_ref
    if admin:
        at, secret = f"{field}.adminSecretRef", owner.names.artifacts_secret
        return (
            SecretKey(secret, credentials.STORE_KEY[0], at),
            SecretKey(secret, credentials.STORE_KEY[1], at),
            StoreAdmin(
                SecretKey(admin.name, admin.access_key_id_key, at, admin.namespace),
                SecretKey(admin.name, admin.secret_access_key_key, at, admin.namespace),
            ),
        )
    if keys:
        at = f"{field}.credentialsSecretRef"
        return (
            SecretKey(keys.name, keys.access_key_id_key, at),
            SecretKey(keys.name, keys.secret_access_key_key, at),
            None,
        )
    return None, None, None


def _bucket_settings(spec: api_artifacts.S3) -> BucketSettings:
    lifecycle, encryption = spec.lifecycle, spec.encryption
    return BucketSettings(
        versioned=spec.versioning is Versioning.ENABLED,
        lifecycle=lifecycle is not None,
        noncurrent_days=lifecycle.noncurrent_version_expiration_days if lifecycle else None,
        abort_days=lifecycle.abort_incomplete_multipart_upload_days if lifecycle else None,
        encryption=_ENCRYPTION[encryption.type] if encryption else None,
        kms_key=encryption.kms_key_id if encryption else None,
    )


def _pods(template: PodTemplate) -> PodSettings:
    spec = template.spec
    return PodSettings(
        labels=dict(template.metadata.labels),
        annotations=dict(template.metadata.annotations),
        node_selector=dict(spec.node_selector),
        tolerations=_manifests(spec.tolerations),
        affinity=spec.affinity or {},
        spread=_manifests(spec.topology_spread_constraints),
        priority_class=spec.priority_class_name,
        service_account=spec.service_account_name,
        pull_secrets=_manifests(spec.image_pull_secrets),
        security_context=spec.security_context or {},
        volumes=_manifests(spec.volumes),
    )


def _manifest(part: Model | None) -> Object:
    return {key: value for key, value in part.manifest().items() if value != {}} if part else {}


def _manifests(parts: Iterable[Model] | None) -> tuple[Object, ...]:
    return tuple(part.manifest() for part in parts or ())
