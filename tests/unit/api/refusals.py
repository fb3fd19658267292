"""What is refused, case by case: what somebody wrote, the field that is blamed, the words they read.

Each case runs twice: against a real API server (tests/apiserver), and against the models alone, which is what
`mlflow-operator render` and the operator have. Changes of a stored resource only the API server sees.
"""

from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """`spec` (of a server called `name`, replacing `before`) is refused for `field`, with `words` in the sentence."""

    promise: str
    spec: Spec
    field: str
    words: str
    name: str = "server"
    before: Spec | None = None


@dataclass(frozen=True)
class Consent:
    """`spec`, replacing `before` if there is one, is taken."""

    promise: str
    spec: Spec
    before: Spec | None = None
    name: str = "server"


def postgres(size: str | None = None, **more: Any) -> Spec:
    """An embedded database with a volume of some size."""
    return {"database": {"embedded": {"storage": {**({"size": size} if size else {}), **more}}}}


def minio(size: str) -> Spec:
    """An embedded artifact store with a volume of some size."""
    return {"artifacts": {"embedded": {"storage": {"size": size}}}}


def engine(name: str) -> Spec:
    """An embedded artifact store that runs this."""
    return {"artifacts": {"embedded": {"engine": name}}}


def external(**more: Any) -> Spec:
    """A database named by its host."""
    return {"database": {"external": {"host": "db", "credentialsSecretRef": {"name": "db"}, **more}}}


def uri(**more: Any) -> Spec:
    """A database named by the URI in a Secret."""
    return {"database": {"external": {"uriSecretRef": {"name": "db"}, **more}}}


def provision(**more: Any) -> Spec:
    """A database made on a shared Postgres."""
    admin = {"name": "postgres-admin", "namespace": "platform"}
    return {"database": {"provision": {"host": "db", "adminSecretRef": admin, **more}}}


def cluster(**more: Any) -> Spec:
    """A database of CloudNativePG."""
    return {"database": {"cloudNativePG": {"clusterName": "pg", **more}}}


def s3(access: str | None = None, **more: Any) -> Spec:
    """A bucket."""
    return {"artifacts": {**({"access": access} if access else {}), "s3": {"bucket": "models", **more}}}


KEY: Spec = {"endpoint": "http://a:9000", "credentialsSecretRef": {"name": "key"}}
ADMIN: Spec = {"endpoint": "http://a:9000", "adminSecretRef": {"name": "admin", "namespace": "platform"}}


def foreign(uri: str) -> Spec:
    """A store that is not S3."""
    return {"artifacts": {"external": {"uri": uri}}}


def pods(**spec: Any) -> Spec:
    """Pods with settings of their own."""
    return {"podTemplate": {"spec": spec}}


def tolerations(*these: Spec) -> Spec:
    """Pods that put up with taints."""
    return pods(tolerations=[*these])


ALLOW = {"storageChangePolicy": "Allow"}

BUCKETS = {
    "a bucket name that is too short": ("ab", "3 to 63 characters"),
    "a bucket name that is too long": ("a" * 64, "3 to 63 characters"),
    "a bucket name in capitals": ("Models", "lower-case letters"),
    "a bucket name with an underscore": ("my_models", "lower-case letters"),
    "a bucket with its scheme": ("s3://models", "no s3://"),
    "a bucket with a path": ("models/team", "goes to prefix"),
    "a bucket name with two dots": ("my..models", "lower-case letters"),
    "a bucket name that ends in a hyphen": ("models-", "end with a letter or digit"),
    "a bucket name like an address": ("10.0.0.1", "IP address"),
    "a bucket name with a prefix of AWS": ("xn--models", "AWS keeps for itself"),
    "a bucket name with a suffix of AWS": ("models-s3alias", "AWS keeps for itself"),
}

VERSIONS = ("v3.17.2", "latest", "3.17", "3.17.2-full", "")

SIZES = ("ten", "10GB", "-1Gi", "0", "10m")

OPERATORS_ENV = {
    "MLFLOW_BACKEND_STORE_URI": "use spec.database",
    "MLFLOW_WORKERS": "use spec.workers",
    "AWS_SECRET_ACCESS_KEY": "use spec.artifacts.s3.credentialsSecretRef",
    "HOME": "Remove it",
}

WRITTEN = [
    Refusal(
        "a schedule that is none", {"backup": {"schedule": "daily"}}, "spec.backup.schedule", "or @daily"
    ),
    Refusal(
        "days as a length of time",
        {"backup": {"retention": {"maxAge": "30d"}}},
        "spec.backup.retention.maxAge",
        "such as 720h for 30 days",
    ),
    Refusal(
        "backups in a store that is not S3",
        {"backup": {}, **foreign("gs://models")},
        "spec.backup",
        "name a bucket in spec.backup.s3",
    ),
    Refusal(
        "a restore of a backup by no id",
        {"restoreFrom": {"serverName": "old", "backup": "yesterday"}},
        "spec.restoreFrom.backup",
        "write latest, or an id",
    ),
    Refusal(
        "a restore of nobody's backup",
        {"restoreFrom": {"backup": "latest"}},
        "spec.restoreFrom.serverName",
        "",
    ),
    Refusal(
        "a restore out of a store that is not S3",
        {"restoreFrom": {"serverName": "old"}, **foreign("gs://models")},
        "spec.restoreFrom",
        "name the bucket in spec.restoreFrom.s3",
    ),
    Refusal(
        "a backup before migrations that goes nowhere",
        {"upgrade": {"backupBeforeMigration": "Required"}},
        "spec.upgrade",
        "needs spec.backup",
    ),
    Refusal(
        "two databases",
        {"database": {"embedded": {}, **external()["database"]}},
        "spec.database",
        "at most one of embedded, external, provision and cloudNativePG",
    ),
    Refusal(
        "two artifact stores",
        {"artifacts": {"embedded": {}, **s3()["artifacts"]}},
        "spec.artifacts",
        "at most one of embedded, s3 and external",
    ),
    Refusal(
        "a key and an administrator to make one",
        s3(endpoint="http://a:9000", credentialsSecretRef={"name": "key"}, adminSecretRef={"name": "admin"}),
        "spec.artifacts.s3",
        "keep one, remove the other",
    ),
    Refusal(
        "an administrator of AWS",
        s3(adminSecretRef={"name": "admin"}),
        "spec.artifacts.s3.adminSecretRef",
        "name the MinIO's endpoint",
    ),
    Refusal(
        "versioning by nobody's key",
        s3(versioning="Enabled"),
        "spec.artifacts.s3",
        "set them on the bucket yourself",
    ),
    Refusal(
        "a lifecycle by nobody's key",
        s3(lifecycle={}),
        "spec.artifacts.s3",
        "set them on the bucket yourself",
    ),
    Refusal(
        "encryption by a key that is not named",
        s3(credentialsSecretRef={"name": "key"}, encryption={"type": "SSEKMS"}),
        "spec.artifacts.s3.encryption.type",
        "add the key's id",
    ),
    Refusal(
        "a key management's key for the store's own encryption",
        s3(credentialsSecretRef={"name": "key"}, encryption={"type": "SSES3", "kmsKeyID": "mlflow"}),
        "spec.artifacts.s3.encryption.type",
        "use type SSES3 without",
    ),
    Refusal(
        "S3 as a foreign store",
        foreign("s3://models"),
        "spec.artifacts.external.uri",
        "goes to spec.artifacts.s3",
    ),
    Refusal(
        "a folder as a store",
        foreign("file:///data"),
        "spec.artifacts.external.uri",
        "a folder goes with its pod",
    ),
    Refusal(
        "a key in a store's address",
        foreign("sftp://user:hunter2@host/path"),
        "spec.artifacts.external.uri",
        "without a key in it",
    ),
    Refusal("no address of a store", foreign("bucket"), "spec.artifacts.external.uri", "gs://bucket/path"),
    Refusal(
        "presigned URLs of a foreign store",
        {"artifacts": {"access": "Presigned", "external": {"uri": "gs://models"}}},
        "spec.artifacts.access",
        "use Proxied, or a store of your own in spec.artifacts.s3",
    ),
    Refusal(
        "an empty external database",
        {"database": {"external": {}}},
        "spec.database.external",
        "exactly one of uriSecretRef and host",
    ),
    Refusal("an empty s3", {"artifacts": {"s3": {}}}, "spec.artifacts.s3.bucket", "required"),
    *(
        Refusal(promise, s3(bucket=bucket), "spec.artifacts.s3.bucket", words)
        for promise, (bucket, words) in BUCKETS.items()
    ),
    Refusal(
        "a prefix with a slash in front", s3(prefix="/team"), "spec.artifacts.s3.prefix", "without a '/'"
    ),
    Refusal(
        "an endpoint without a scheme",
        s3(endpoint="minio:9000"),
        "spec.artifacts.s3.endpoint",
        "write http://",
    ),
    Refusal(
        "an endpoint with a path",
        s3(endpoint="http://minio/x"),
        "spec.artifacts.s3.endpoint",
        "nothing after it",
    ),
    Refusal(
        "keys of an embedded store",
        {"artifacts": {"access": "Direct"}},
        "spec.artifacts.access",
        "use Proxied, or a store of your own in spec.artifacts.s3",
    ),
    Refusal(
        "a public address that nobody is told",
        s3(publicEndpoint="https://s3.example.com"),
        "spec.artifacts.s3",
        "publicEndpoint has no effect",
    ),
    Refusal(
        "presigned URLs of an embedded store",
        {"artifacts": {"access": "Presigned"}},
        "spec.artifacts.access",
        "use Proxied, or a store of your own in spec.artifacts.s3",
    ),
    Refusal("an access of a later release", s3(access="Mounted"), "spec.artifacts.access", "Presigned"),
    Refusal(
        "a host with its port",
        external(host="db:5433"),
        "spec.database.external.host",
        "the port goes to port",
    ),
    Refusal(
        "a host without credentials",
        {"database": {"external": {"host": "db"}}},
        "spec.database.external",
        "name their Secret in credentialsSecretRef",
    ),
    Refusal(
        "a host and a URI",
        external(uriSecretRef={"name": "db"}),
        "spec.database.external",
        "exactly one of uriSecretRef and host",
    ),
    Refusal("a URI and a port", uri(port=5433), "spec.database.external", "remove port"),
    Refusal(
        "a role of Postgres' own",
        provision(roleName="pg_monitor"),
        "spec.database.provision.roleName",
        "keeps for itself",
    ),
    Refusal(
        "everybody as a role",
        provision(roleName="public"),
        "spec.database.provision.roleName",
        "keeps for itself",
    ),
    Refusal(
        "a role with a quote in it",
        provision(roleName='a"b'),
        "spec.database.provision.roleName",
        "no name of a role",
    ),
    Refusal(
        "a database with a blank in it",
        provision(databaseName="a b"),
        "spec.database.provision.databaseName",
        "no name of a database",
    ),
    Refusal(
        "an administrator in no namespace there can be",
        provision(adminSecretRef={"name": "a", "namespace": "A_b"}),
        "spec.database.provision.adminSecretRef.namespace",
        "no name of a namespace",
    ),
    Refusal(
        "a Cluster with a namespace",
        cluster(clusterName="other/pg"),
        "spec.database.cloudNativePG.clusterName",
        "no name of a Cluster",
    ),
    Refusal(
        "a URI for a host",
        external(host="postgresql://me:hunter2@db/mlflow"),
        "spec.database.external.host",
        "a whole URI to a Secret named by uriSecretRef",
    ),
    Refusal(
        "verification without a CA",
        uri(tls={"mode": "VerifyFull"}),
        "spec.database.external.tls",
        "name its Secret in caSecretRef",
    ),
    Refusal(
        "a CA that nothing uses",
        uri(tls={"caSecretRef": {"name": "ca"}}),
        "spec.database.external.tls",
        "set mode VerifyFull",
    ),
    Refusal(
        "background jobs on two replicas",
        {"jobExecution": "Enabled", "replicas": 2},
        "jobExecution",
        "lower replicas, or set jobExecution to Disabled",
    ),
    *(
        Refusal(f"the version {version!r}", {"version": version}, "spec.version", "such as 3.17.2")
        for version in VERSIONS
    ),
    *(
        Refusal(f"a volume of {size}", postgres(size), "spec.database.embedded.storage.size", "such as 10Gi")
        for size in SIZES
    ),
    Refusal(
        "memory in GB",
        {"resources": {"limits": {"memory": "2GB"}}},
        "spec.resources.limits",
        "memory as 512Mi or 2Gi",
    ),
    Refusal(
        "negative CPU",
        {"resources": {"requests": {"cpu": -1}}},
        "spec.resources.requests",
        "CPU as 500m or 2",
    ),
    Refusal(
        "a request above its limit",
        {"resources": {"requests": {"cpu": "3"}, "limits": {"cpu": 2}}},
        "spec.resources",
        "lower the one or raise the other",
    ),
    Refusal(
        "a memory request above its limit",
        {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
        "spec.resources",
        "lower the one or raise the other",
    ),
    Refusal(
        "a storage request above its limit",
        {"resources": {"requests": {"ephemeral-storage": "2Gi"}, "limits": {"ephemeral-storage": "1Gi"}}},
        "spec.resources",
        "lower the one or raise the other",
    ),
    Refusal(
        "a toleration that ends of a taint that does not evict",
        tolerations({"key": "ml", "effect": "NoSchedule", "tolerationSeconds": 5}),
        "spec.podTemplate.spec.tolerations[0]",
        "set effect to NoExecute",
    ),
    Refusal(
        "a toleration of a value of no key",
        tolerations({"value": "gpu"}),
        "spec.podTemplate.spec.tolerations[0]",
        "set operator to Exists",
    ),
    Refusal(
        "a toleration of any value and of one",
        tolerations({"key": "ml", "operator": "Exists", "value": "gpu"}),
        "spec.podTemplate.spec.tolerations[0]",
        "remove value",
    ),
    Refusal(
        "a spread that counts places and does not insist",
        pods(
            topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}
            ]
        ),
        "spec.podTemplate.spec.topologySpreadConstraints[0]",
        "remove minDomains",
    ),
    Refusal("a variable with a hyphen", {"env": [{"name": "A-B"}]}, "spec.env[0].name", "digits and '_'"),
    Refusal(
        "a variable from two places",
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
    Refusal(
        "an envFrom of nothing",
        {"envFrom": [{}]},
        "spec.envFrom[0]",
        "exactly one of secretRef and configMapRef",
    ),
    *(
        Refusal(f"{name} in env", {"env": [{"name": name, "value": "x"}]}, "spec.env[0]", words)
        for name, words in OPERATORS_ENV.items()
    ),
    Refusal(
        "a variable with two values",
        {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        "spec.env[0]",
        "at most one of value and valueFrom",
    ),
    Refusal(
        "a mount of no volume",
        {"volumeMounts": [{"name": "ca", "mountPath": "/ca"}]},
        "spec.volumeMounts",
        "add the volume there",
    ),
    Refusal(
        "a mount at a relative path",
        {"volumeMounts": [{"name": "x", "mountPath": "data"}]},
        "spec.volumeMounts[0].mountPath",
        "absolute path",
    ),
    Refusal(
        "a mount over the operator's own",
        {
            "volumeMounts": [{"name": "x", "mountPath": "/home/mlflow-operator"}],
            "podTemplate": {"spec": {"volumes": [{"name": "x", "emptyDir": {}}]}},
        },
        "spec.volumeMounts[0].mountPath",
        "take another",
    ),
    Refusal(
        "a volume with the name of one of the operator's own",
        {"podTemplate": {"spec": {"volumes": [{"name": "home", "emptyDir": {}}]}}},
        "spec.podTemplate.spec.volumes[0].name",
        "take another",
    ),
    Refusal(
        "a host with a scheme",
        {"allowedHosts": ["https://mlflow.example.com"]},
        "spec.allowedHosts[0]",
        "without http://",
    ),
    Refusal("an image with a blank", {"image": "my image"}, "spec.image", "registry/repository:tag"),
    Refusal(
        "a Secret's name in capitals", uri(uriSecretRef={"name": "DB"}), "uriSecretRef.name", "lower-case"
    ),
    Refusal("a name of 41 characters", {}, "metadata.name", "40 characters at most", name="a" * 41),
    Refusal("a name with a dot", {}, "metadata.name", "lower-case letters", name="team.server"),
    Refusal("a name with a digit in front", {}, "metadata.name", "begin with a letter", name="3servers"),
]
"""Refused when it is written, whatever was there before."""

PRUNED = [
    Refusal(
        "an external database with nothing below it",
        {"database": {"external": None}},
        "spec.database",
        "is empty: fill in embedded, external, provision or cloudNativePG",
    ),
    Refusal(
        "an s3 with nothing below it",
        {"artifacts": {"s3": None}},
        "spec.artifacts",
        "is empty: fill in embedded, s3, external or access",
    ),
    Refusal("a database without a member", {"database": {}}, "spec.database", "remove spec.database"),
]
"""Refused by the API server, which prunes a null; for the models an empty union is the default."""

CHANGED = [
    Refusal(
        "a restore into a server that is there",
        {"restoreFrom": {"serverName": "old"}},
        "spec.restoreFrom",
        "make another server",
        before={},
    ),
    Refusal(
        "another backup to restore",
        {"restoreFrom": {"serverName": "old", "backup": "20260101T000000Z-00000001"}},
        "spec.restoreFrom",
        "make another server",
        before={"restoreFrom": {"serverName": "old"}},
    ),
    Refusal("a smaller database", postgres("5Gi"), "spec.database", "got smaller", before=postgres("10Gi")),
    Refusal(
        "a database smaller than the default", postgres("5Gi"), "spec.database", "got smaller", before={}
    ),
    Refusal("a size taken back", {}, "spec.database", "got smaller", before=postgres("20Gi")),
    Refusal(
        "a smaller database though changes are allowed",
        postgres("5Gi") | ALLOW,
        "spec.database",
        "got smaller",
        before=postgres("10Gi"),
    ),
    Refusal("a smaller artifact store", minio("5Gi"), "spec.artifacts", "got smaller", before=minio("30Gi")),
    Refusal("another engine", engine("SeaweedFS"), "spec.artifacts", "engine changed", before={}),
    Refusal("the engine taken back", {}, "spec.artifacts", "engine changed", before=engine("SeaweedFS")),
    Refusal(
        "another storage class",
        postgres(storageClassName="slow"),
        "spec.database",
        "stays in its class",
        before=postgres(storageClassName="fast"),
    ),
    Refusal(
        "another storage class for artifacts",
        {"artifacts": {"embedded": {"storage": {"storageClassName": "slow"}}}},
        "spec.artifacts",
        "stays in its class",
        before={},
    ),
    Refusal(
        "a storage class for a volume that has one",
        postgres(storageClassName="fast"),
        "spec.database",
        "stays in its class",
        before={},
    ),
    Refusal(
        "an external database instead", external(), "spec.database", "set spec.storageChangePolicy", before={}
    ),
    Refusal(
        "an embedded database instead", {}, "spec.database", "set spec.storageChangePolicy", before=uri()
    ),
    Refusal(
        "another host", external(host="db2"), "spec.database", "host or its port changed", before=external()
    ),
    Refusal(
        "another port", external(port=5433), "spec.database", "host or its port changed", before=external()
    ),
    Refusal(
        "another database name",
        external(databaseName="other"),
        "spec.database",
        "databaseName changed",
        before=external(),
    ),
    Refusal(
        "a provisioned database instead",
        provision(),
        "spec.database",
        "set spec.storageChangePolicy",
        before=uri(),
    ),
    Refusal(
        "an external database instead of one of CloudNativePG",
        uri(),
        "spec.database",
        "set spec.storageChangePolicy",
        before=cluster(),
    ),
    Refusal(
        "another shared Postgres", provision(host="db2"), "spec.database", "host or port", before=provision()
    ),
    Refusal(
        "another port of a shared Postgres",
        provision(port=5433),
        "spec.database",
        "host or port",
        before=provision(),
    ),
    Refusal(
        "another database there",
        provision(databaseName="b"),
        "spec.database",
        "databaseName or roleName changed",
        before=provision(databaseName="a"),
    ),
    Refusal(
        "the derived role no longer",
        provision(roleName="b"),
        "spec.database",
        "databaseName or roleName changed",
        before=provision(),
    ),
    Refusal(
        "another Cluster",
        cluster(clusterName="pg2"),
        "spec.database",
        "clusterName or databaseName",
        before=cluster(),
    ),
    Refusal(
        "another database in the Cluster",
        cluster(databaseName="b"),
        "spec.database",
        "clusterName or databaseName",
        before=cluster(),
    ),
    Refusal("a bucket instead", s3(), "spec.artifacts", "set spec.storageChangePolicy", before={}),
    Refusal(
        "a foreign store instead",
        foreign("gs://a"),
        "spec.artifacts",
        "set spec.storageChangePolicy",
        before={},
    ),
    Refusal(
        "another foreign store",
        foreign("gs://b"),
        "spec.artifacts",
        "external.uri changed",
        before=foreign("gs://a"),
    ),
    Refusal("another bucket", s3(bucket="other"), "spec.artifacts", "s3.bucket changed", before=s3()),
    Refusal("a prefix", s3(prefix="team"), "spec.artifacts", "s3.prefix changed", before=s3()),
    Refusal("no prefix", s3(), "spec.artifacts", "s3.prefix changed", before=s3(prefix="team")),
    Refusal(
        "another endpoint",
        s3(endpoint="http://b:9000"),
        "spec.artifacts",
        "endpoint changed",
        before=s3(endpoint="http://a:9000"),
    ),
    Refusal("AWS instead", s3(), "spec.artifacts", "endpoint changed", before=s3(endpoint="http://a:9000")),
    Refusal(
        "another access",
        s3(access="Presigned"),
        "spec.artifacts",
        "access changed",
        before=s3(access="Proxied"),
    ),
]
"""Refused because of what was stored before."""

ACCEPTED = [
    Consent("a restore that is over", {}, before={"restoreFrom": {"serverName": "old"}}),
    Consent(
        "a restore, all said",
        {
            "restoreFrom": {
                "serverName": "old",
                "namespace": "there",
                "backup": "latest",
                "image": "postgres:18",
                "s3": {"bucket": "vault"},
            },
            **foreign("gs://models"),
        },
    ),
    Consent("an empty spec", {}),
    Consent("the longest name", {}, name="a" * 40),
    Consent("backups by default", {"backup": {}}),
    Consent("a backup before migrations", {"backup": {}, "upgrade": {"backupBeforeMigration": "Required"}}),
    Consent(
        "backups in a bucket, of a server whose store is none",
        {"backup": {"s3": {"bucket": "vault"}}, **foreign("gs://models")},
    ),
    Consent("an embedded database by name", {"database": {"embedded": {}}}),
    Consent("an embedded store by name", {"artifacts": {"embedded": {}, "access": "Proxied"}}),
    Consent("a URI", uri()),
    Consent("a host and verification", external(tls={"mode": "VerifyFull", "caSecretRef": {"name": "ca"}})),
    Consent("a bucket on AWS", s3(access="Presigned")),
    Consent("clients with keys", s3(access="Direct", publicEndpoint="https://s3.example.com")),
    Consent("a public address to sign for", s3(access="Presigned", publicEndpoint="https://s3.example.com")),
    Consent("a bucket elsewhere", s3(endpoint="https://[fd00::1]:9000", prefix="team-a/mlflow")),
    Consent("a release candidate", {"version": "3.18.0rc1"}),
    Consent("jobs on one replica", {"jobExecution": "Enabled"}),
    Consent("no replica", {"replicas": 0, "jobExecution": "Enabled"}),
    Consent(
        "CPU as a number", {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "2", "memory": "2Gi"}}}
    ),
    Consent(
        "workload identity by hand", {"env": [{"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/a"}]}
    ),
    Consent(
        "a mount and its volume",
        {
            "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
            "podTemplate": {"spec": {"volumes": [{"name": "ca", "configMap": {"name": "ca"}}]}},
        },
    ),
    Consent("a toleration of everything", tolerations({"operator": "Exists"})),
    Consent(
        "tolerations of all sorts",
        tolerations(
            {"key": "ml", "value": "gpu", "effect": "NoSchedule"},
            {"key": "ml", "operator": "Exists"},
            {"key": "ml", "effect": "NoExecute", "tolerationSeconds": 60},
        ),
    ),
    Consent("hosts", {"allowedHosts": ["mlflow.example.com", "*.example.com:8443", "[fd00::1]:5000", "*"]}),
    Consent("a larger database", postgres("20Gi"), before=postgres("10Gi")),
    Consent("the same size in other words", postgres("10240Mi"), before={}),
    Consent("more replicas", {"replicas": 3} | s3(), before=s3()),
    Consent("an external database, meant", external() | ALLOW, before={}),
    Consent("another engine, meant", engine("SeaweedFS") | ALLOW, before={}),
    Consent("the default engine by name", engine("MinIO"), before={}),
    Consent("another bucket, meant", s3(bucket="other") | ALLOW, before=s3()),
    Consent("a foreign store", foreign("wasbs://models@team.blob.core.windows.net/mlflow")),
    Consent("a foreign store, meant", foreign("gs://models") | ALLOW, before=minio("30Gi")),
    Consent("an administrator instead of a key", s3(**ADMIN), before=s3(**KEY)),
    Consent("a key instead of an administrator", s3(**KEY), before=s3(**ADMIN)),
    Consent("other credentials", external(credentialsSecretRef={"name": "new"}), before=external()),
    Consent("the default port by name", external(port=5432), before=external()),
    Consent("TLS for the same store", s3(endpoint="https://a:9000"), before=s3(endpoint="http://a:9000")),
    Consent("a provisioned database, meant", provision() | ALLOW, before={}),
    Consent("a provisioned database, all said", provision(port=5433, databaseName="A.b-c", roleName="r-1")),
    Consent("another administrator", provision(adminSecretRef={"name": "b"}), before=provision()),
    Consent("the default port of a shared Postgres by name", provision(port=5432), before=provision()),
    Consent("a database of CloudNativePG by its default name", cluster(databaseName="app"), before=cluster()),
    Consent("another Cluster, meant", cluster(clusterName="pg2") | ALLOW, before=cluster()),
    # What the URI holds is in a Secret: the operator compares it when it connects.
    Consent("a URI instead of a host", uri(), before=external()),
]
"""Taken: what people do write."""
