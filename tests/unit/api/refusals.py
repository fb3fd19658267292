"""Specs that the validation rules reject, with the field and the message, and specs that they accept.

Each case is tested with an API server (tests/apiserver) and with the models, which `mlflow-operator render` and the
operator use. Only the API server can evaluate transition rules.
"""

from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A spec that is rejected. The error names `field` and contains `message`.

    `name` is the name of the server. `old_spec` is the stored spec that `spec` replaces.
    """

    title: str
    spec: Spec
    field: str
    message: str
    name: str = "server"
    old_spec: Spec | None = None


@dataclass(frozen=True)
class Accepted:
    """A spec that is accepted. `old_spec` is the stored spec that `spec` replaces."""

    title: str
    spec: Spec
    old_spec: Spec | None = None
    name: str = "server"


def resource_field(divisor: str) -> Spec:
    """Source of a variable: the CPU limit of the container."""
    return {"resourceFieldRef": {"resource": "limits.cpu", "divisor": divisor}}


def token_volume(audience: str | None) -> Spec:
    """Volume with a token of the service account."""
    token = {"path": "token", **({} if audience is None else {"audience": audience})}
    volume = {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    return {"podTemplate": {"spec": {"volumes": [volume]}}}


def security_context(**fields: Any) -> Spec:
    """Security context of the pods."""
    return {"podTemplate": {"spec": {"securityContext": fields}}}


def embedded_database(size: str | None = None, **fields: Any) -> Spec:
    """Embedded database with a volume."""
    return {"database": {"embedded": {"storage": {**({"size": size} if size else {}), **fields}}}}


def embedded_artifacts(size: str) -> Spec:
    """Embedded artifact store with a volume."""
    return {"artifacts": {"embedded": {"storage": {"size": size}}}}


def embedded_engine(name: str) -> Spec:
    """Embedded artifact store with an engine."""
    return {"artifacts": {"embedded": {"engine": name}}}


def external_database(**fields: Any) -> Spec:
    """External database, configured by host and credentials."""
    return {"database": {"external": {"host": "db", "credentialsSecretRef": {"name": "db"}, **fields}}}


def database_uri(**fields: Any) -> Spec:
    """External database, configured by a URI in a Secret."""
    return {"database": {"external": {"uriSecretRef": {"name": "db"}, **fields}}}


def provisioned_database(**fields: Any) -> Spec:
    """Provisioned database on a shared PostgreSQL."""
    admin = {"name": "postgres-admin"}
    return {"database": {"provision": {"host": "db", "adminSecretRef": admin, **fields}}}


def cloud_native_pg(**fields: Any) -> Spec:
    """Database in a CloudNativePG Cluster."""
    return {"database": {"cloudNativePG": {"clusterName": "pg", **fields}}}


def s3(access: str | None = None, **fields: Any) -> Spec:
    """S3 artifact store."""
    return {"artifacts": {**({"access": access} if access else {}), "s3": {"bucket": "models", **fields}}}


S3_CREDENTIALS: Spec = {"endpoint": "http://a:9000", "credentialsSecretRef": {"name": "key"}}
S3_ADMIN: Spec = {"endpoint": "http://a:9000", "adminSecretRef": {"name": "admin"}}


def external_artifacts(uri: str) -> Spec:
    """Artifact store that is not S3."""
    return {"artifacts": {"external": {"uri": uri}}}


def pod_spec(**spec: Any) -> Spec:
    """Pod template with a pod spec."""
    return {"podTemplate": {"spec": spec}}


def tolerations(*items: Spec) -> Spec:
    """Pod template with tolerations."""
    return pod_spec(tolerations=[*items])


UNCONFINED = "container.apparmor.security.beta.kubernetes.io/server"

ALLOW_STORAGE_CHANGE = {"storageChangePolicy": "Allow"}

INVALID_BUCKET_NAMES = {
    "bucket name with 2 characters": ("ab", "3 to 63 characters"),
    "bucket name with 64 characters": ("a" * 64, "3 to 63 characters"),
    "bucket name with upper-case letters": ("Models", "lower-case letters"),
    "bucket name with an underscore": ("my_models", "lower-case letters"),
    "bucket name with a scheme": ("s3://models", "do not include s3://"),
    "bucket name with a path": ("models/team", "belongs in prefix"),
    "bucket name with two consecutive dots": ("my..models", "lower-case letters"),
    "bucket name that ends with a hyphen": ("models-", "end with a letter or digit"),
    "bucket name that looks like an IP address": ("10.0.0.1", "IP address"),
    "bucket name with a reserved prefix": ("xn--models", "that AWS reserves"),
    "bucket name with a reserved suffix": ("models-s3alias", "that AWS reserves"),
}

INVALID_VERSIONS = ("v3.17.2", "latest", "3.17", "3.17.2-full", "")

INVALID_SIZES = ("ten", "10GB", "-1Gi", "0", "10m")

RESERVED_VARIABLES = {
    "MLFLOW_BACKEND_STORE_URI": "use spec.database",
    "MLFLOW_WORKERS": "use spec.workers",
    "AWS_SECRET_ACCESS_KEY": "use spec.artifacts.s3.credentialsSecretRef",
    "HOME": "Remove it",
}

REJECTED_ON_CREATE = [
    Rejected("platform without a name", {"platformRef": {}}, "spec.platformRef.name", "required"),
    Rejected(
        "invalid name of a platform",
        {"platformRef": {"name": "Shared"}},
        "spec.platformRef.name",
        "is not a valid object name",
    ),
    Rejected(
        "database of a platform and an embedded database",
        {"database": {"platform": {}, "embedded": {}}},
        "spec.database",
        "must set at most one",
    ),
    Rejected(
        "invalid schedule",
        {"backup": {"schedule": "daily"}},
        "spec.backup.schedule",
        "or a macro such as @daily",
    ),
    Rejected(
        "duration in days",
        {"backup": {"retention": {"maxAge": "30d"}}},
        "spec.backup.retention.maxAge",
        "such as 720h for 30 days",
    ),
    Rejected(
        "backups in an external artifact store",
        {"backup": {}, **external_artifacts("gs://models")},
        "spec.backup",
        "set a bucket in spec.backup.s3",
    ),
    Rejected(
        "restore from an invalid backup ID",
        {"restoreFrom": {"serverName": "old", "backup": "yesterday"}},
        "spec.restoreFrom.backup",
        "use latest, or an ID",
    ),
    Rejected(
        "rotation of a passphrase that the user manages",
        {
            "encryption": {
                "secretRef": {"name": "keys"},
                "rotatePassphraseAt": "2026-12-24T18:00:00Z",
            }
        },
        "spec.encryption.rotatePassphraseAt",
        "put the new passphrase and its version into the Secret of spec.encryption.secretRef",
    ),
    Rejected(
        "two types of authentication",
        {"auth": {"basic": {}, "none": {}}},
        "spec.auth",
        "spec.auth must set at most one of basic and none",
    ),
    Rejected(
        "administrator without authentication",
        {"auth": {"none": {}, "admin": {}}},
        "spec.auth.admin",
        "has no effect with spec.auth.none: remove one of them",
    ),
    Rejected(
        "default permission without authentication",
        {"auth": {"none": {}, "defaultPermission": "Read"}},
        "spec.auth.defaultPermission",
        "has no effect with spec.auth.none: remove one of them",
    ),
    Rejected(
        "unknown default permission",
        {"auth": {"defaultPermission": "Write"}},
        "spec.auth.defaultPermission",
        "",
    ),
    *(
        Rejected(
            f"administrator with the name {username!r}",
            {"auth": {"admin": {"username": username}}},
            "spec.auth.admin.username",
            "is not a valid user name",
        )
        for username in ("", "a:b", "a\nb", "\x7f", "__user_1__", "__", "_:", ":")
    ),
    Rejected(
        "assistant with authentication",
        {"auth": {}, "assistant": "Enabled"},
        "spec.assistant",
        "set spec.assistant to Disabled",
    ),
    *(
        Rejected(
            f"authentication with MLflow {version}",
            {"auth": {"basic": {}}, "version": version},
            "spec.version",
            "spec.auth requires MLflow 3.14.0 or later",
        )
        for version in ("2.22.5", "3.1.0", "3.9.0", "3.13.0", "3.13.1rc1")
    ),
    *(
        Rejected(
            f"{name} with authentication",
            {"auth": {}, "env": [{"name": name, "value": "hunter2"}]},
            "spec.env",
            "with spec.auth: the operator configures MLflow's authentication",
        )
        for name in ("MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_APP_NAME", "MLFLOW_AUTH_ADMIN_PASSWORD")
    ),
    Rejected(
        "variable of the operator for authentication",
        {"env": [{"name": "MLFLOW_OPERATOR_AUTH", "value": "none"}]},
        "spec.env[0]",
        "use spec.auth",
    ),
    Rejected(
        "volume with the name of the encryption keys",
        {"podTemplate": {"spec": {"volumes": [{"name": "encryption-keys", "emptyDir": {}}]}}},
        "spec.podTemplate.spec.volumes[0].name",
        "is the name of a volume that the operator adds",
    ),
    Rejected(
        "unknown policy for missing keys",
        {"restoreFrom": {"serverName": "old", "missingKeyPolicy": "Maybe"}},
        "spec.restoreFrom.missingKeyPolicy",
        "",
    ),
    Rejected(
        "restore without a server name",
        {"restoreFrom": {"backup": "latest"}},
        "spec.restoreFrom.serverName",
        "",
    ),
    Rejected(
        "restore from an external artifact store",
        {"restoreFrom": {"serverName": "old"}, **external_artifacts("gs://models")},
        "spec.restoreFrom",
        "set the bucket in spec.restoreFrom.s3",
    ),
    Rejected(
        "required backup before migrations without spec.backup",
        {"upgrade": {"backupBeforeMigration": "Required"}},
        "spec.upgrade",
        "requires spec.backup",
    ),
    Rejected(
        "two databases",
        {"database": {"embedded": {}, **external_database()["database"]}},
        "spec.database",
        "at most one of embedded, external, provision, cloudNativePG and platform",
    ),
    Rejected(
        "two artifact stores",
        {"artifacts": {"embedded": {}, **s3()["artifacts"]}},
        "spec.artifacts",
        "at most one of embedded, s3, external and platform",
    ),
    Rejected(
        "S3 credentials and S3 administrator",
        s3(endpoint="http://a:9000", credentialsSecretRef={"name": "key"}, adminSecretRef={"name": "admin"}),
        "spec.artifacts.s3",
        "remove one of them",
    ),
    Rejected(
        "S3 administrator for AWS",
        s3(adminSecretRef={"name": "admin"}),
        "spec.artifacts.s3.adminSecretRef",
        "set endpoint to the URL of MinIO",
    ),
    Rejected(
        "bucket versioning without credentials",
        s3(versioning="Enabled"),
        "spec.artifacts.s3",
        "configure the bucket yourself",
    ),
    Rejected(
        "bucket lifecycle without credentials",
        s3(lifecycle={}),
        "spec.artifacts.s3",
        "configure the bucket yourself",
    ),
    Rejected(
        "SSE-KMS without a key ID",
        s3(credentialsSecretRef={"name": "key"}, encryption={"type": "SSEKMS"}),
        "spec.artifacts.s3.encryption.type",
        "set kmsKeyID for SSEKMS",
    ),
    Rejected(
        "SSE-S3 with a key ID",
        s3(credentialsSecretRef={"name": "key"}, encryption={"type": "SSES3", "kmsKeyID": "mlflow"}),
        "spec.artifacts.s3.encryption.type",
        "remove it and use type SSES3",
    ),
    Rejected(
        "S3 URI as an external artifact store",
        external_artifacts("s3://models"),
        "spec.artifacts.external.uri",
        "set bucket and prefix in spec.artifacts.s3",
    ),
    Rejected(
        "directory as an external artifact store",
        external_artifacts("file:///data"),
        "spec.artifacts.external.uri",
        "directory, which is lost with its pod",
    ),
    Rejected(
        "password in an artifact URI",
        external_artifacts("sftp://user:hunter2@host/path"),
        "spec.artifacts.external.uri",
        "without credentials",
    ),
    Rejected(
        "invalid artifact URI",
        external_artifacts("bucket"),
        "spec.artifacts.external.uri",
        "gs://bucket/path",
    ),
    Rejected(
        "presigned URLs for an external artifact store",
        {"artifacts": {"access": "Presigned", "external": {"uri": "gs://models"}}},
        "spec.artifacts.access",
        "set access to Proxied, or configure one of them",
    ),
    Rejected(
        "empty external database",
        {"database": {"external": {}}},
        "spec.database.external",
        "exactly one of uriSecretRef and host",
    ),
    Rejected("s3 without a bucket", {"artifacts": {"s3": {}}}, "spec.artifacts.s3.bucket", "required"),
    *(
        Rejected(title, s3(bucket=bucket), "spec.artifacts.s3.bucket", message)
        for title, (bucket, message) in INVALID_BUCKET_NAMES.items()
    ),
    Rejected(
        "prefix that begins with a slash", s3(prefix="/team"), "spec.artifacts.s3.prefix", "without a '/'"
    ),
    Rejected(
        "endpoint without a scheme",
        s3(endpoint="minio:9000"),
        "spec.artifacts.s3.endpoint",
        "use http://",
    ),
    Rejected(
        "endpoint with a slash at the end",
        s3(endpoint="https://minio.example.com/"),
        "spec.artifacts.s3.endpoint",
        "without a path or a '/' at the end",
    ),
    Rejected(
        "endpoint with a path",
        s3(endpoint="http://minio/x"),
        "spec.artifacts.s3.endpoint",
        "without a path",
    ),
    Rejected(
        "direct access to an embedded artifact store",
        {"artifacts": {"access": "Direct"}},
        "spec.artifacts.access",
        "set access to Proxied, or configure one of them",
    ),
    Rejected(
        "public endpoint with access Proxied",
        s3(publicEndpoint="https://s3.example.com"),
        "spec.artifacts.s3",
        "publicEndpoint has no effect",
    ),
    Rejected(
        "presigned URLs for an embedded artifact store",
        {"artifacts": {"access": "Presigned"}},
        "spec.artifacts.access",
        "set access to Proxied, or configure one of them",
    ),
    Rejected("unknown access mode", s3(access="Mounted"), "spec.artifacts.access", "Presigned"),
    *(
        Rejected(
            f"resources of the pods of component {name}",
            {"podTemplate": {"components": [{"name": name, "resources": {"limits": {"cpu": "1"}}}]}},
            "spec.podTemplate.components[0]",
            "resources of Server, Database and ArtifactStore have their own fields",
        )
        for name in ("Server", "Database", "ArtifactStore")
    ),
    Rejected(
        "unknown component",
        {"podTemplate": {"components": [{"name": "Rotation"}]}},
        "spec.podTemplate.components[0].name",
        "GarbageCollection",
    ),
    Rejected(
        "request of a Job above its limit",
        {
            "podTemplate": {
                "components": [
                    {"name": "Backup", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}
                ]
            }
        },
        "spec.podTemplate.components[0].resources",
        "requests.cpu must not exceed limits.cpu",
    ),
    Rejected(
        "database host with a port",
        external_database(host="db:5433"),
        "spec.database.external.host",
        "set the port in port",
    ),
    Rejected(
        "database host without credentials",
        {"database": {"external": {"host": "db"}}},
        "spec.database.external",
        "host requires credentialsSecretRef",
    ),
    Rejected(
        "database host and URI",
        external_database(uriSecretRef={"name": "db"}),
        "spec.database.external",
        "exactly one of uriSecretRef and host",
    ),
    Rejected("database URI and port", database_uri(port=5433), "spec.database.external", "remove port"),
    Rejected(
        "predefined role of PostgreSQL",
        provisioned_database(roleName="pg_monitor"),
        "spec.database.provision.roleName",
        "that PostgreSQL reserves",
    ),
    Rejected(
        "reserved role name",
        provisioned_database(roleName="public"),
        "spec.database.provision.roleName",
        "that PostgreSQL reserves",
    ),
    Rejected(
        "role name with a quote",
        provisioned_database(roleName='a"b'),
        "spec.database.provision.roleName",
        "not a supported role name",
    ),
    Rejected(
        "database name with a space",
        provisioned_database(databaseName="a b"),
        "spec.database.provision.databaseName",
        "not a supported database name",
    ),
    Rejected(
        "Cluster name with a namespace",
        cloud_native_pg(clusterName="other/pg"),
        "spec.database.cloudNativePG.clusterName",
        "not a valid Cluster name",
    ),
    Rejected(
        "URI as a database host",
        external_database(host="postgresql://me:hunter2@db/mlflow"),
        "spec.database.external.host",
        "store a connection URI in a Secret that uriSecretRef names",
    ),
    Rejected(
        "TLS verification without a CA",
        database_uri(tls={"mode": "VerifyFull"}),
        "spec.database.external.tls",
        "set caSecretRef to a Secret with the CA",
    ),
    Rejected(
        "CA without TLS verification",
        database_uri(tls={"caSecretRef": {"name": "ca"}}),
        "spec.database.external.tls",
        "set mode to VerifyFull",
    ),
    Rejected(
        "background jobs with two replicas",
        {"jobExecution": "Enabled", "replicas": 2},
        "jobExecution",
        "lower replicas, or set jobExecution to Disabled",
    ),
    *(
        Rejected(f"version {version!r}", {"version": version}, "spec.version", "such as 3.17.2")
        for version in INVALID_VERSIONS
    ),
    *(
        Rejected(
            f"volume size {size}",
            embedded_database(size),
            "spec.database.embedded.storage.size",
            "such as 10Gi",
        )
        for size in INVALID_SIZES
    ),
    Rejected(
        "memory with an exponent that cannot be computed",
        {"resources": {"limits": {"memory": "1e99999999999999999999"}}},
        "spec.resources.limits",
        "memory as 512Mi or 2Gi",
    ),
    *(
        Rejected(
            f"variable with the divisor {divisor}",
            {"env": [{"name": "CPU", "valueFrom": resource_field(divisor)}]},
            "spec.env[0].valueFrom.resourceFieldRef.divisor",
            "use one such as 1, 1m or 1Mi",
        )
        for divisor in ("one", "1e99999999999999999999")
    ),
    Rejected(
        "memory in GB",
        {"resources": {"limits": {"memory": "2GB"}}},
        "spec.resources.limits",
        "memory as 512Mi or 2Gi",
    ),
    Rejected(
        "negative CPU",
        {"resources": {"requests": {"cpu": -1}}},
        "spec.resources.requests",
        "CPU as 500m or 2",
    ),
    Rejected(
        "CPU request above its limit",
        {"resources": {"requests": {"cpu": "3"}, "limits": {"cpu": 2}}},
        "spec.resources",
        "lower requests.cpu or raise limits.cpu",
    ),
    Rejected(
        "memory request above its limit",
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
        "spec.resources",
        "lower requests.memory or raise limits.memory",
    ),
    Rejected(
        "ephemeral storage request above its limit",
        {"resources": {"requests": {"ephemeral-storage": "2Gi"}, "limits": {"ephemeral-storage": "1Gi"}}},
        "spec.resources",
        "lower requests.ephemeral-storage or raise limits.ephemeral-storage",
    ),
    Rejected(
        "tolerationSeconds for a NoSchedule taint",
        tolerations({"key": "ml", "effect": "NoSchedule", "tolerationSeconds": 5}),
        "spec.podTemplate.spec.tolerations[0]",
        "set effect to NoExecute",
    ),
    Rejected(
        "toleration with a value and without a key",
        tolerations({"value": "gpu"}),
        "spec.podTemplate.spec.tolerations[0]",
        "set operator to Exists",
    ),
    Rejected(
        "toleration with operator Exists and a value",
        tolerations({"key": "ml", "operator": "Exists", "value": "gpu"}),
        "spec.podTemplate.spec.tolerations[0]",
        "remove value",
    ),
    Rejected(
        "minDomains with ScheduleAnyway",
        pod_spec(
            topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}
            ]
        ),
        "spec.podTemplate.spec.topologySpreadConstraints[0]",
        "remove minDomains",
    ),
    Rejected("variable name with a hyphen", {"env": [{"name": "A-B"}]}, "spec.env[0].name", "digits and '_'"),
    Rejected(
        "variable with two sources",
        {
            "env": [
                {
                    "name": "A",
                    "valueFrom": {
                        "secretKeyRef": {"name": "x", "key": "a"},
                        "configMapKeyRef": {"name": "x", "key": "a"},
                    },
                }
            ]
        },
        "spec.env[0].valueFrom",
        "exactly one of secretKeyRef, configMapKeyRef",
    ),
    Rejected(
        "envFrom without a source",
        {"envFrom": [{}]},
        "spec.envFrom[0]",
        "exactly one of secretRef and configMapRef",
    ),
    *(
        Rejected(f"variable {name}", {"env": [{"name": name, "value": "x"}]}, "spec.env[0]", message)
        for name, message in RESERVED_VARIABLES.items()
    ),
    Rejected(
        "variable with a value and a source",
        {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        "spec.env[0]",
        "at most one of value and valueFrom",
    ),
    Rejected(
        "mount of a missing volume",
        {"volumeMounts": [{"name": "ca", "mountPath": "/ca"}]},
        "spec.volumeMounts",
        "add the volume there",
    ),
    Rejected(
        "relative mount path",
        {"volumeMounts": [{"name": "x", "mountPath": "data"}]},
        "spec.volumeMounts[0].mountPath",
        "absolute path",
    ),
    Rejected(
        "reserved mount path",
        {
            "volumeMounts": [{"name": "x", "mountPath": "/home/mlflow-operator"}],
            "podTemplate": {"spec": {"volumes": [{"name": "x", "emptyDir": {}}]}},
        },
        "spec.volumeMounts[0].mountPath",
        "use another path",
    ),
    Rejected(
        "reserved volume name",
        {"podTemplate": {"spec": {"volumes": [{"name": "home", "emptyDir": {}}]}}},
        "spec.podTemplate.spec.volumes[0].name",
        "use another name",
    ),
    *(
        Rejected(
            f"volume of type {volume_type}",
            {"podTemplate": {"spec": {"volumes": [{"name": "x", volume_type: source}]}}},
            "spec.podTemplate.spec.volumes[0]",
            "create a PersistentVolumeClaim",
        )
        for volume_type, source in (
            ("hostPath", {"path": "/"}),
            ("nfs", {"server": "nfs", "path": "/"}),
            ("gitRepo", {"repository": "https://example.com"}),
            ("image", {"reference": "example.com/a:1"}),
        )
    ),
    Rejected(
        "volume without a type",
        {"podTemplate": {"spec": {"volumes": [{"name": "x"}]}}},
        "spec.podTemplate.spec.volumes[0]",
        "exactly one of the supported types",
    ),
    Rejected(
        "volume with two types",
        {
            "podTemplate": {
                "spec": {"volumes": [{"name": "x", "emptyDir": {}, "secret": {"secretName": "x"}}]}
            }
        },
        "spec.podTemplate.spec.volumes[0]",
        "exactly one of the supported types",
    ),
    Rejected(
        "token for the Kubernetes API",
        token_volume("https://kubernetes.default.svc.cluster.local"),
        "spec.podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken.audience",
        "the audience of another system",
    ),
    Rejected(
        "token for the Kubernetes API of GKE",
        token_volume("https://container.googleapis.com/v1/projects/p/locations/l/clusters/c"),
        "spec.podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken.audience",
        "the audience of another system",
    ),
    Rejected(
        "token for the Kubernetes API of k3s",
        token_volume("k3s"),
        "spec.podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken.audience",
        "the audience of another system",
    ),
    Rejected(
        "unconfined AppArmor profile in an annotation",
        {"podTemplate": {"metadata": {"annotations": {UNCONFINED: "unconfined"}}}},
        "spec.podTemplate.metadata.annotations",
        "must not select the AppArmor profile unconfined",
    ),
    Rejected(
        "unconfined AppArmor profile in an annotation of one component",
        {
            "podTemplate": {
                "components": [{"name": "Backup", "metadata": {"annotations": {UNCONFINED: "unconfined"}}}]
            }
        },
        "spec.podTemplate.components[0].metadata.annotations",
        "must not select the AppArmor profile unconfined",
    ),
    Rejected(
        "token with an empty audience",
        token_volume(""),
        "spec.podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken.audience",
        "the audience of another system",
    ),
    Rejected(
        "token without an audience",
        token_volume(None),
        "spec.podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken.audience",
        "equired",
    ),
    Rejected(
        "user root",
        security_context(runAsUser=0),
        "spec.podTemplate.spec.securityContext.runAsUser",
        "never run as root",
    ),
    Rejected(
        "root is allowed",
        security_context(runAsNonRoot=False),
        "spec.podTemplate.spec.securityContext.runAsNonRoot",
        "never run as root",
    ),
    Rejected(
        "unconfined seccomp profile",
        security_context(seccompProfile={"type": "Unconfined"}),
        "spec.podTemplate.spec.securityContext.seccompProfile.type",
        "RuntimeDefault",
    ),
    Rejected(
        "unconfined AppArmor profile",
        security_context(appArmorProfile={"type": "Unconfined"}),
        "spec.podTemplate.spec.securityContext.appArmorProfile.type",
        "RuntimeDefault",
    ),
    Rejected(
        "local profile without a name",
        security_context(seccompProfile={"type": "Localhost"}),
        "spec.podTemplate.spec.securityContext.seccompProfile.localhostProfile",
        "with type Localhost",
    ),
    Rejected(
        "allowed host with a scheme",
        {"allowedHosts": ["https://mlflow.example.com"]},
        "spec.allowedHosts[0]",
        "without http://",
    ),
    Rejected("image with a space", {"image": "my image"}, "spec.image", "registry/repository:tag"),
    Rejected(
        "Secret name with upper-case letters",
        database_uri(uriSecretRef={"name": "DB"}),
        "uriSecretRef.name",
        "lower-case",
    ),
    Rejected("server name with 41 characters", {}, "metadata.name", "at most 40 characters", name="a" * 41),
    Rejected("server name with a dot", {}, "metadata.name", "lower-case letters", name="team.server"),
    Rejected(
        "server name that begins with a digit", {}, "metadata.name", "begin with a letter", name="3servers"
    ),
]
"""Rejected on create and on update."""

REJECTED_AFTER_PRUNING = [
    Rejected(
        "null as external database",
        {"database": {"external": None}},
        "spec.database",
        "must not be empty: set embedded, external, provision, cloudNativePG or platform",
    ),
    Rejected(
        "null as s3",
        {"artifacts": {"s3": None}},
        "spec.artifacts",
        "must not be empty: set embedded, s3, external, platform or access",
    ),
    Rejected("empty database", {"database": {}}, "spec.database", "remove spec.database"),
]
"""Rejected by the API server, which prunes null values. The models accept an empty union as the default."""

REJECTED_ON_UPDATE = [
    Rejected(
        "another administrator",
        {"auth": {"admin": {"username": "root"}}},
        "spec.auth",
        "spec.auth.admin.username must not change",
        old_spec={"auth": {}},
    ),
    Rejected(
        "the default administrator instead of another one",
        {"auth": {"basic": {}, "admin": {"passwordSecretRef": {"name": "own"}}}},
        "spec.auth",
        "restore the previous value (the default is admin)",
        old_spec={"auth": {"admin": {"username": "root"}}},
    ),
    Rejected(
        "restore into an existing server",
        {"restoreFrom": {"serverName": "old"}},
        "spec.restoreFrom",
        "create another server",
        old_spec={},
    ),
    Rejected(
        "restore of another backup",
        {"restoreFrom": {"serverName": "old", "backup": "20260101T000000Z-00000001"}},
        "spec.restoreFrom",
        "create another server",
        old_spec={"restoreFrom": {"serverName": "old"}},
    ),
    Rejected(
        "smaller database volume",
        embedded_database("5Gi"),
        "spec.database",
        "must not decrease",
        old_spec=embedded_database("10Gi"),
    ),
    Rejected(
        "database volume smaller than the default",
        embedded_database("5Gi"),
        "spec.database",
        "must not decrease",
        old_spec={},
    ),
    Rejected(
        "removed volume size", {}, "spec.database", "must not decrease", old_spec=embedded_database("20Gi")
    ),
    Rejected(
        "smaller database volume with storageChangePolicy Allow",
        embedded_database("5Gi") | ALLOW_STORAGE_CHANGE,
        "spec.database",
        "must not decrease",
        old_spec=embedded_database("10Gi"),
    ),
    Rejected(
        "smaller artifact volume",
        embedded_artifacts("5Gi"),
        "spec.artifacts",
        "must not decrease",
        old_spec=embedded_artifacts("30Gi"),
    ),
    Rejected(
        "other engine", embedded_engine("SeaweedFS"), "spec.artifacts", "engine must not change", old_spec={}
    ),
    Rejected(
        "removed engine",
        {},
        "spec.artifacts",
        "engine must not change",
        old_spec=embedded_engine("SeaweedFS"),
    ),
    Rejected(
        "other storage class of the database volume",
        embedded_database(storageClassName="slow"),
        "spec.database",
        "storage class of a volume is immutable",
        old_spec=embedded_database(storageClassName="fast"),
    ),
    Rejected(
        "other storage class of the artifact volume",
        {"artifacts": {"embedded": {"storage": {"storageClassName": "slow"}}}},
        "spec.artifacts",
        "storage class of a volume is immutable",
        old_spec={},
    ),
    Rejected(
        "storage class for an existing volume",
        embedded_database(storageClassName="fast"),
        "spec.database",
        "storage class of a volume is immutable",
        old_spec={},
    ),
    Rejected(
        "embedded to external database",
        external_database(),
        "spec.database",
        "set spec.storageChangePolicy",
        old_spec={},
    ),
    Rejected(
        "external to embedded database",
        {},
        "spec.database",
        "set spec.storageChangePolicy",
        old_spec=database_uri(),
    ),
    Rejected(
        "other database host",
        external_database(host="db2"),
        "spec.database",
        "host or its port must not change",
        old_spec=external_database(),
    ),
    Rejected(
        "other database port",
        external_database(port=5433),
        "spec.database",
        "host or its port must not change",
        old_spec=external_database(),
    ),
    Rejected(
        "other database name",
        external_database(databaseName="other"),
        "spec.database",
        "databaseName must not change",
        old_spec=external_database(),
    ),
    Rejected(
        "external to provisioned database",
        provisioned_database(),
        "spec.database",
        "set spec.storageChangePolicy",
        old_spec=database_uri(),
    ),
    Rejected(
        "CloudNativePG to external database",
        database_uri(),
        "spec.database",
        "set spec.storageChangePolicy",
        old_spec=cloud_native_pg(),
    ),
    Rejected(
        "other host of a provisioned database",
        provisioned_database(host="db2"),
        "spec.database",
        "host or port",
        old_spec=provisioned_database(),
    ),
    Rejected(
        "other port of a provisioned database",
        provisioned_database(port=5433),
        "spec.database",
        "host or port",
        old_spec=provisioned_database(),
    ),
    Rejected(
        "other name of a provisioned database",
        provisioned_database(databaseName="b"),
        "spec.database",
        "databaseName or roleName must not change",
        old_spec=provisioned_database(databaseName="a"),
    ),
    Rejected(
        "other role of a provisioned database",
        provisioned_database(roleName="b"),
        "spec.database",
        "databaseName or roleName must not change",
        old_spec=provisioned_database(),
    ),
    Rejected(
        "other Cluster",
        cloud_native_pg(clusterName="pg2"),
        "spec.database",
        "clusterName or databaseName",
        old_spec=cloud_native_pg(),
    ),
    Rejected(
        "other database in the Cluster",
        cloud_native_pg(databaseName="b"),
        "spec.database",
        "clusterName or databaseName",
        old_spec=cloud_native_pg(),
    ),
    Rejected(
        "embedded to S3 artifact store", s3(), "spec.artifacts", "set spec.storageChangePolicy", old_spec={}
    ),
    Rejected(
        "embedded to external artifact store",
        external_artifacts("gs://a"),
        "spec.artifacts",
        "set spec.storageChangePolicy",
        old_spec={},
    ),
    Rejected(
        "other external artifact store",
        external_artifacts("gs://b"),
        "spec.artifacts",
        "external.uri must not change",
        old_spec=external_artifacts("gs://a"),
    ),
    Rejected(
        "other bucket", s3(bucket="other"), "spec.artifacts", "s3.bucket must not change", old_spec=s3()
    ),
    Rejected("added prefix", s3(prefix="team"), "spec.artifacts", "s3.prefix must not change", old_spec=s3()),
    Rejected(
        "removed prefix", s3(), "spec.artifacts", "s3.prefix must not change", old_spec=s3(prefix="team")
    ),
    Rejected(
        "other endpoint",
        s3(endpoint="http://b:9000"),
        "spec.artifacts",
        "endpoint must not change",
        old_spec=s3(endpoint="http://a:9000"),
    ),
    Rejected(
        "removed endpoint",
        s3(),
        "spec.artifacts",
        "endpoint must not change",
        old_spec=s3(endpoint="http://a:9000"),
    ),
    Rejected(
        "platform instead of an external database",
        {"database": {"platform": {}}},
        "spec.database",
        "The type of spec.database must not change",
        old_spec=external_database(),
    ),
    Rejected(
        "external database instead of a platform",
        external_database(),
        "spec.database",
        "The type of spec.database must not change",
        old_spec={"database": {"platform": {}}},
    ),
    Rejected(
        "platform instead of an external artifact store",
        {"artifacts": {"platform": {}}},
        "spec.artifacts",
        "The type of spec.artifacts must not change",
        old_spec=external_artifacts("gs://models/a"),
    ),
    Rejected(
        "other access mode",
        s3(access="Presigned"),
        "spec.artifacts",
        "access must not change",
        old_spec=s3(access="Proxied"),
    ),
]
"""Rejected by transition rules on update."""

PLATFORM_STORES: Spec = {"database": {"platform": {}}, "artifacts": {"platform": {}}}
"""The stores of a platform, explicitly."""

ACCEPTED = [
    Accepted("default authentication", {"auth": {}}),
    Accepted("no authentication, as an explicit choice", {"auth": {"none": {}}, "assistant": "Enabled"}),
    Accepted(
        "authentication with all fields",
        {
            "version": "3.14.0",
            "auth": {
                "basic": {},
                "defaultPermission": "Manage",
                "admin": {
                    "username": "_bob@example.com %",
                    "passwordSecretRef": {"name": "own", "key": "p"},
                },
            },
        },
    ),
    Accepted("authentication with a later major version", {"auth": {}, "version": "10.0.0"}),
    Accepted(
        "MLflow's authentication without spec.auth",
        {"env": [{"name": "MLFLOW_AUTH_CONFIG_PATH", "value": "/etc/auth.ini"}]},
    ),
    Accepted(
        "authentication that is added with another administrator",
        {"auth": {"admin": {"username": "root"}}},
        old_spec={},
    ),
    Accepted(
        "default name of the administrator that becomes explicit",
        {"auth": {"admin": {"username": "admin"}}},
        old_spec={"auth": {"basic": {}}},
    ),
    Accepted("stores of the default platform", PLATFORM_STORES),
    Accepted("stores of a platform", {"platformRef": {"name": "shared"}, **PLATFORM_STORES}),
    Accepted("platform without explicit stores", {"platformRef": {"name": "shared"}}),
    *(
        Accepted(
            f"access {access} to the store of a platform", {"artifacts": {"access": access, "platform": {}}}
        )
        for access in ("Presigned", "Direct")
    ),
    # The operator decides whether the store changes: only the status shows which one a server without a choice uses.
    Accepted("explicit choice of the platform's stores", PLATFORM_STORES, old_spec={}),
    Accepted("default instead of an explicit choice", {}, old_spec=PLATFORM_STORES),
    Accepted(
        "platform instead of a large embedded database",
        {**PLATFORM_STORES, **ALLOW_STORAGE_CHANGE},
        old_spec={**embedded_database("100Gi", storageClassName="fast"), **embedded_artifacts("1Ti")},
    ),
    # The operator refuses other stores than the platform's.
    Accepted(
        "platform that takes over a provisioned database and a bucket",
        PLATFORM_STORES,
        old_spec={**provisioned_database(), **s3(**S3_ADMIN)},
    ),
    Accepted(
        "return from a platform that refuses to take over the stores",
        {**provisioned_database(), **s3(**S3_ADMIN)},
        old_spec=PLATFORM_STORES,
    ),
    Accepted(
        "rotation of the generated passphrase", {"encryption": {"rotatePassphraseAt": "2026-12-24T18:00:00Z"}}
    ),
    Accepted(
        "encryption keys of the user with all fields",
        {
            "encryption": {
                "secretRef": {
                    "name": "keys",
                    "passphraseKey": "p",
                    "passphraseVersionKey": "v",
                    "webhookKey": "w",
                    "flaskKey": "f",
                }
            }
        },
    ),
    Accepted("removed restore", {}, old_spec={"restoreFrom": {"serverName": "old"}}),
    Accepted(
        "restore with all fields",
        {
            "restoreFrom": {
                "serverName": "old",
                "missingKeyPolicy": "Ignore",
                "namespace": "there",
                "backup": "latest",
                "image": "postgres:18",
                "s3": {"bucket": "vault"},
            },
            **external_artifacts("gs://models"),
        },
    ),
    Accepted("empty spec", {}),
    Accepted("longest server name", {}, name="a" * 40),
    Accepted("backups with defaults", {"backup": {}}),
    Accepted("backup before migrations", {"backup": {}, "upgrade": {"backupBeforeMigration": "Required"}}),
    Accepted(
        "backups in a bucket with an external artifact store",
        {"backup": {"s3": {"bucket": "vault"}}, **external_artifacts("gs://models")},
    ),
    Accepted("explicit embedded database", {"database": {"embedded": {}}}),
    Accepted("explicit embedded artifact store", {"artifacts": {"embedded": {}, "access": "Proxied"}}),
    Accepted("database URI", database_uri()),
    Accepted(
        "database host with TLS verification",
        external_database(tls={"mode": "VerifyFull", "caSecretRef": {"name": "ca"}}),
    ),
    Accepted("bucket on AWS", s3(access="Presigned")),
    Accepted(
        "direct access with a public endpoint", s3(access="Direct", publicEndpoint="https://s3.example.com")
    ),
    Accepted(
        "presigned URLs with a public endpoint",
        s3(access="Presigned", publicEndpoint="https://s3.example.com"),
    ),
    Accepted(
        "bucket with an endpoint and a prefix", s3(endpoint="https://[fd00::1]:9000", prefix="team-a/mlflow")
    ),
    Accepted("release candidate", {"version": "3.18.0rc1"}),
    Accepted("background jobs with one replica", {"jobExecution": "Enabled"}),
    Accepted("background jobs without replicas", {"replicas": 0, "jobExecution": "Enabled"}),
    Accepted(
        "CPU as a number", {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "2", "memory": "2Gi"}}}
    ),
    Accepted("variable with a divisor", {"env": [{"name": "CPU", "valueFrom": resource_field("1m")}]}),
    Accepted("AWS role variable", {"env": [{"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/a"}]}),
    Accepted(
        "mount of a volume",
        {
            "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
            "podTemplate": {"spec": {"volumes": [{"name": "ca", "configMap": {"name": "ca"}}]}},
        },
    ),
    Accepted(
        "settings of the pods of each component",
        {
            "podTemplate": {
                "components": [
                    {"name": "Migration", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                    {"name": "Server", "metadata": {"annotations": {"inject": "false"}}},
                    {"name": "Database", "metadata": {"labels": {"inject": "false"}}},
                ]
            }
        },
    ),
    Accepted(
        "volumes of all supported types",
        {
            "podTemplate": {
                "spec": {
                    "volumes": [
                        {"name": "a", "configMap": {"name": "a", "defaultMode": 292}},
                        {"name": "b", "secret": {"secretName": "b", "items": [{"key": "a", "path": "b"}]}},
                        {"name": "c", "emptyDir": {}},
                        {"name": "d", "persistentVolumeClaim": {"claimName": "d"}},
                        {"name": "e", "downwardAPI": {"items": []}},
                        {"name": "f", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}},
                        {"name": "g", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                        {
                            "name": "h",
                            "projected": {"sources": [{"secret": {"name": "h"}}], "defaultMode": 292},
                        },
                    ]
                }
            }
        },
    ),
    Accepted(
        "AppArmor profile in an annotation",
        {"podTemplate": {"metadata": {"annotations": {UNCONFINED: "localhost/mlflow"}}}},
    ),
    Accepted("token for a cloud provider", token_volume("//iam.googleapis.com/projects/1")),
    Accepted(
        "security context of OpenShift",
        security_context(
            runAsUser=1000650000,
            runAsGroup=0,
            fsGroup=1000650000,
            supplementalGroups=[5],
            seLinuxOptions={"level": "s0:c26,c5"},
            seccompProfile={"type": "Localhost", "localhostProfile": "profiles/mlflow.json"},
        ),
    ),
    Accepted("toleration of all taints", tolerations({"operator": "Exists"})),
    Accepted(
        "tolerations with different operators and effects",
        tolerations(
            {"key": "ml", "value": "gpu", "effect": "NoSchedule"},
            {"key": "ml", "operator": "Exists"},
            {"key": "ml", "effect": "NoExecute", "tolerationSeconds": 60},
        ),
    ),
    Accepted(
        "allowed hosts",
        {
            "allowedHosts": [
                "mlflow.example.com",
                "mlflow.example.com.",
                "*.example.com:8443",
                "[fd00::1]:5000",
                "*",
            ]
        },
    ),
    Accepted("larger database volume", embedded_database("20Gi"), old_spec=embedded_database("10Gi")),
    Accepted("same volume size in another unit", embedded_database("10240Mi"), old_spec={}),
    Accepted("more replicas", {"replicas": 3} | s3(), old_spec=s3()),
    Accepted(
        "embedded to external database with storageChangePolicy Allow",
        external_database() | ALLOW_STORAGE_CHANGE,
        old_spec={},
    ),
    Accepted(
        "other engine with storageChangePolicy Allow",
        embedded_engine("SeaweedFS") | ALLOW_STORAGE_CHANGE,
        old_spec={},
    ),
    Accepted("explicit default engine", embedded_engine("MinIO"), old_spec={}),
    Accepted(
        "other bucket with storageChangePolicy Allow",
        s3(bucket="other") | ALLOW_STORAGE_CHANGE,
        old_spec=s3(),
    ),
    Accepted(
        "external artifact store", external_artifacts("wasbs://models@team.blob.core.windows.net/mlflow")
    ),
    Accepted(
        "embedded to external artifact store with storageChangePolicy Allow",
        external_artifacts("gs://models") | ALLOW_STORAGE_CHANGE,
        old_spec=embedded_artifacts("30Gi"),
    ),
    Accepted("credentials to administrator", s3(**S3_ADMIN), old_spec=s3(**S3_CREDENTIALS)),
    Accepted("administrator to credentials", s3(**S3_CREDENTIALS), old_spec=s3(**S3_ADMIN)),
    Accepted(
        "other credentials",
        external_database(credentialsSecretRef={"name": "new"}),
        old_spec=external_database(),
    ),
    Accepted("explicit default port", external_database(port=5432), old_spec=external_database()),
    Accepted(
        "http to https for the same endpoint",
        s3(endpoint="https://a:9000"),
        old_spec=s3(endpoint="http://a:9000"),
    ),
    Accepted(
        "embedded to provisioned database with storageChangePolicy Allow",
        provisioned_database() | ALLOW_STORAGE_CHANGE,
        old_spec={},
    ),
    Accepted(
        "provisioned database with all fields",
        provisioned_database(port=5433, databaseName="A.b-c", roleName="r-1"),
    ),
    Accepted(
        "other administrator",
        provisioned_database(adminSecretRef={"name": "b"}),
        old_spec=provisioned_database(),
    ),
    Accepted(
        "explicit default port of a provisioned database",
        provisioned_database(port=5432),
        old_spec=provisioned_database(),
    ),
    Accepted(
        "explicit default database in the Cluster",
        cloud_native_pg(databaseName="app"),
        old_spec=cloud_native_pg(),
    ),
    Accepted(
        "other Cluster with storageChangePolicy Allow",
        cloud_native_pg(clusterName="pg2") | ALLOW_STORAGE_CHANGE,
        old_spec=cloud_native_pg(),
    ),
    # The URI is in a Secret. The operator compares it with the previous host when it connects.
    Accepted("database host to URI", database_uri(), old_spec=external_database()),
]
"""Accepted on create, or on update of `old_spec`."""
