"""Specs of MLflowPlatform that the validation rules reject, with the field and the message, and specs that they accept.

Each case is tested with an API server (tests/apiserver) and with the models, which the operator uses.
"""

import copy
from typing import Any

from tests.unit.api.refusals import Accepted, Rejected, Spec

_REMOVED = object()


def platform(**changes: Any) -> Spec:
    """Return a valid spec with both stores, and other values at some paths, such as `database__postgres__port`."""
    spec: Spec = {
        "namespaceSelector": {"matchLabels": {"example.com/tracking": "true"}},
        "secretsNamespace": "mlflow-platform",
        "database": {
            "postgres": {
                "host": "postgres.mlflow-platform.svc",
                "adminSecretRef": {"name": "postgres-admin"},
                "tls": {"caSecretRef": {"name": "ca"}},
            }
        },
        "artifacts": {
            "s3": {
                "endpoint": "https://minio.mlflow-platform.svc:9000",
                "bucket": "mlflow",
                "adminSecretRef": {"name": "minio-admin"},
            }
        },
    }
    spec = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = spec
        for parent in parents:
            part = part.setdefault(parent, {})
        if value is _REMOVED:
            part.pop(last)
        else:
            part[last] = value
    return spec


def without(*paths: str) -> Spec:
    """Return a valid spec without some fields."""
    return platform(**dict.fromkeys(paths, _REMOVED))


def postgres(**fields: Any) -> Spec:
    """Return a valid spec with other fields of PostgreSQL."""
    return platform(**{f"database__postgres__{name}": value for name, value in fields.items()})


def s3(**fields: Any) -> Spec:
    """Return a valid spec with other fields of the store."""
    return platform(**{f"artifacts__s3__{name}": value for name, value in fields.items()})


def expression(**fields: Any) -> Spec:
    """Return a valid spec whose selector has one expression."""
    return platform(namespaceSelector={"matchExpressions": [fields]})


POSTGRES, S3 = "spec.database.postgres", "spec.artifacts.s3"
CA: Spec = {"caSecretRef": {"name": "ca"}}

INVALID_LABELS = {
    "key with a space": {"a b": "c"},
    "key that ends with a dot": {"a.": "c"},
    "key with an upper-case domain": {"Example.com/a": "c"},
    "key with two slashes": {"a/b/c": "d"},
    "key with a name of 64 characters": {"a" * 64: "b"},
    "empty key": {"": "b"},
    "value with a slash": {"a": "b/c"},
    "value that begins with a hyphen": {"a": "-b"},
}

INVALID_PREFIXES = {
    "prefix without a namespace": ("{name}", "{namespace} once as a whole segment"),
    "prefix without a name": ("mlflow/{namespace}", "{name} once as a whole segment"),
    "prefix with a namespace in a longer segment": ("team-{namespace}/{name}", "is not a valid prefix"),
    "prefix with both placeholders in one segment": ("{namespace}{name}", "is not a valid prefix"),
    "prefix with a placeholder twice": ("{namespace}/{name}/{name}", "{name} once as a whole segment"),
    "prefix with an unknown placeholder": ("{namespace}/{name}/{uid}", "is not a valid prefix"),
    "prefix with a slash at the beginning": ("/{namespace}/{name}", "is not a valid prefix"),
    "prefix with a wildcard": ("*/{namespace}/{name}", "is not a valid prefix"),
    "prefix with two dots": ("../{namespace}/{name}", "is not a valid prefix"),
    "prefix among the owners": (
        "_mlflow-operator/{namespace}/{name}",
        "must not begin with _mlflow-operator",
    ),
}

INVALID_IMAGE_PREFIXES = {
    "without a registry": "library/postgres",
    "with a tag": "registry.example.com/ml:1",
    "with a slash at the end": "registry.example.com/ml/",
    "with a wildcard": "registry.example.com/*",
    "with an empty segment": "registry.example.com//ml",
    "with two dots": "registry.example.com/../ml",
    "in upper case": "registry.example.com/ML",
    "with a URL": "https://registry.example.com",
    "empty": "",
}

INVALID_DEFAULTS: dict[str, tuple[Spec, str, str]] = {
    "version": ({"version": "v3.17.2"}, "version", "is not a valid MLflow version"),
    "empty version": ({"version": ""}, "version", "is not a valid MLflow version"),
    "pull secret": (
        {"imagePullSecrets": [{"name": "Registry"}]},
        "imagePullSecrets[0].name",
        "is not a valid object name",
    ),
    "AppArmor profile": (
        {"podMetadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}}},
        "podMetadata.annotations",
        "must not select the AppArmor profile unconfined",
    ),
    "schedule of backups": ({"backup": {"schedule": "daily"}}, "backup.schedule", "is not a valid"),
    "bucket of backups": (
        {"backup": {"s3": {"bucket": "My_bucket"}}},
        "backup.s3.bucket",
        "is not a valid bucket name",
    ),
    "age in garbage collection": (
        {"garbageCollection": {"olderThan": "30d"}},
        "garbageCollection.olderThan",
        "is not a valid",
    ),
}

REJECTED = [
    *(
        Rejected(
            f"image prefix {title}",
            platform(policy={"images": [prefix]}),
            "spec.policy.images[0]",
            "is not a valid image prefix",
        )
        for title, prefix in INVALID_IMAGE_PREFIXES.items()
    ),
    Rejected(
        "no service type", platform(policy={"serviceTypes": []}), "spec.policy.serviceTypes", "at least 1"
    ),
    Rejected(
        "service type ExternalName",
        platform(policy={"serviceTypes": ["ExternalName"]}),
        "spec.policy.serviceTypes[0]",
        "ClusterIP",
    ),
    Rejected("other stores", platform(policy={"stores": "Own"}), "spec.policy.stores", "PlatformOnly"),
    Rejected(
        "invalid service account",
        platform(policy={"serviceAccountNames": ["A"]}),
        "spec.policy.serviceAccountNames[0]",
        "is not a valid object name",
    ),
    Rejected(
        "no servers",
        platform(policy={"serversPerNamespace": 0}),
        "spec.policy.serversPerNamespace",
        "greater than or equal to 1",
    ),
    *(
        Rejected(
            f"default {title}", platform(serverDefaults=defaults), f"spec.serverDefaults.{field}", message
        )
        for title, (defaults, field, message) in INVALID_DEFAULTS.items()
    ),
    Rejected(
        "no store",
        without("database", "artifacts"),
        "spec",
        "set spec.database, spec.artifacts, or both",
    ),
    Rejected("no namespaceSelector", without("namespaceSelector"), "spec.namespaceSelector", "required"),
    Rejected("no secretsNamespace", without("secretsNamespace"), "spec.secretsNamespace", "required"),
    Rejected(
        "invalid secretsNamespace",
        platform(secretsNamespace="Platform"),
        "spec.secretsNamespace",
        "is not a valid namespace name",
    ),
    Rejected("empty database", platform(database={}), "spec.database.postgres", "required"),
    Rejected("empty artifacts", platform(artifacts={}), "spec.artifacts.s3", "required"),
    *(
        Rejected(
            f"matchLabels: {title}",
            platform(namespaceSelector={"matchLabels": labels}),
            "spec.namespaceSelector.matchLabels",
            "must contain valid labels only",
        )
        for title, labels in INVALID_LABELS.items()
    ),
    Rejected(
        "invalid key in an expression",
        expression(key="a b", operator="Exists"),
        "spec.namespaceSelector.matchExpressions[0].key",
        "is not a valid label key",
    ),
    Rejected(
        "invalid value in an expression",
        expression(key="a", operator="In", values=["b c"]),
        "spec.namespaceSelector.matchExpressions[0].values[0]",
        "is not a valid label value",
    ),
    *(
        Rejected(
            f"{operator} without values",
            expression(key="a", operator=operator),
            "spec.namespaceSelector.matchExpressions[0]",
            "values are required by operator In and NotIn",
        )
        for operator in ("In", "NotIn")
    ),
    *(
        Rejected(
            f"{operator} with values",
            expression(key="a", operator=operator, values=["b"]),
            "spec.namespaceSelector.matchExpressions[0]",
            "not allowed with Exists and DoesNotExist",
        )
        for operator in ("Exists", "DoesNotExist")
    ),
    Rejected(
        "host without a dot", postgres(host="postgres"), f"{POSTGRES}.host", "postgres.mlflow-platform.svc"
    ),
    Rejected(
        "host with a port", postgres(host="pg.example.com:5432"), f"{POSTGRES}.host", "set the port in port"
    ),
    Rejected(
        "host with a password",
        postgres(host="postgresql://me:hunter2@pg.example.com"),
        f"{POSTGRES}.host",
        "is not a valid host",
    ),
    Rejected(
        "no TLS settings",
        without("database__postgres__tls"),
        f"{POSTGRES}.tls",
        "tls is required, because the default mode VerifyFull verifies the certificate of PostgreSQL with the CA that "
        "signed it: set tls.caSecretRef to a Secret with this CA in spec.secretsNamespace, or",
    ),
    Rejected(
        "default TLS mode without a CA",
        postgres(tls={}),
        f"{POSTGRES}.tls",
        "VerifyCA and VerifyFull require caSecretRef",
    ),
    *(
        Rejected(
            f"TLS mode {mode} without a CA",
            postgres(tls={"mode": mode}),
            f"{POSTGRES}.tls",
            "VerifyCA and VerifyFull require caSecretRef",
        )
        for mode in ("VerifyCA", "VerifyFull")
    ),
    *(
        Rejected(
            f"TLS mode {mode} with a CA",
            postgres(tls={"mode": mode, **CA}),
            f"{POSTGRES}.tls",
            "has no effect with mode Disable or Prefer",
        )
        for mode in ("Disable", "Prefer")
    ),
    Rejected(
        "no administrator of PostgreSQL",
        without("database__postgres__adminSecretRef"),
        f"{POSTGRES}.adminSecretRef",
        "required",
    ),
    Rejected("port 0", postgres(port=0), f"{POSTGRES}.port", "greater than or equal to 1"),
    *(
        Rejected(
            f"limit of {limit} connections",
            postgres(maxConnectionsPerServer=limit),
            f"{POSTGRES}.maxConnectionsPerServer",
            message,
        )
        for limit, message in (
            (19, "greater than or equal to 20"),
            (262144, "less than or equal to 262143"),
        )
    ),
    Rejected("no endpoint", without("artifacts__s3__endpoint"), f"{S3}.endpoint", "required"),
    Rejected(
        "endpoint without a dot",
        s3(endpoint="https://minio:9000"),
        f"{S3}.endpoint",
        "https://minio.mlflow-platform.svc:9000",
    ),
    Rejected(
        "endpoint with a path",
        s3(endpoint="https://minio.example.com/a.b"),
        f"{S3}.endpoint",
        "is not a valid endpoint",
    ),
    Rejected(
        "no administrator of the store",
        without("artifacts__s3__adminSecretRef"),
        f"{S3}.adminSecretRef",
        "required",
    ),
    Rejected("invalid bucket", s3(bucket="My_bucket"), f"{S3}.bucket", "is not a valid bucket name"),
    Rejected(
        "encryption without a key",
        s3(encryption={"type": "SSEKMS"}),
        f"{S3}.encryption",
        "encryption.kmsKeyID is required",
    ),
    *(
        Rejected(title, s3(prefix=prefix), f"{S3}.prefix", message)
        for title, (prefix, message) in INVALID_PREFIXES.items()
    ),
    *(
        Rejected(
            f"adoption {adoption}",
            platform(adoptions=[adoption]),
            "spec.adoptions[0]",
            "is not a valid server",
        )
        for adoption in ("tracking", "team-a/", "team-a/Tracking", "team-a/a/b", "*/tracking")
    ),
]

ACCEPTED = [
    Accepted("both stores", platform()),
    Accepted("limit of connections", postgres(maxConnectionsPerServer=20)),
    Accepted("database only", without("artifacts")),
    Accepted("artifacts only", without("database")),
    Accepted("every namespace", platform(namespaceSelector={})),
    Accepted(
        "selector with expressions",
        platform(
            namespaceSelector={
                "matchLabels": {"app.kubernetes.io/part-of": "", "Team_1.a": "B.c_d-e"},
                "matchExpressions": [
                    {"key": "example.com/team", "operator": "In", "values": ["a", ""]},
                    {"key": "a", "operator": "NotIn", "values": ["b"]},
                    {"key": "b", "operator": "Exists"},
                    {"key": "c", "operator": "DoesNotExist", "values": []},
                ],
            }
        ),
    ),
    *(Accepted(f"host {host}", postgres(host=host)) for host in ("10.0.0.1", "fd00::1", "pg.example.com")),
    *(
        Accepted(f"TLS mode {mode}", postgres(tls={"mode": mode}))
        for mode in ("Disable", "Prefer", "Require")
    ),
    *(
        Accepted(f"TLS mode {mode}", postgres(tls={"mode": mode, **CA}))
        for mode in ("Require", "VerifyCA", "VerifyFull")
    ),
    *(
        Accepted(f"endpoint {endpoint}", s3(endpoint=endpoint))
        for endpoint in ("http://10.0.0.1:9000", "https://[fd00::1]:9000", "https://minio.example.com")
    ),
    *(
        Accepted(f"prefix {prefix}", s3(prefix=prefix))
        for prefix in (
            "{namespace}/{name}",
            "{name}/{namespace}",
            "a/{namespace}/b/{name}/c=1",
            "_mlflow/{namespace}/{name}",
        )
    ),
    Accepted("no limits and no defaults", platform(policy={}, serverDefaults={})),
    *(
        Accepted(f"image prefix {prefix}", platform(policy={"images": [prefix]}))
        for prefix in (
            *("docker.io", "docker.io/library", "localhost/ml", "localhost:5000", "registry:5000/a/b"),
            *("registry.example.com/ml-flow/a__b.c", "10.0.0.1:5000/ml"),
        )
    ),
    Accepted(
        "all limits",
        platform(
            policy={
                "stores": "PlatformOnly",
                "images": ["registry.example.com/ml", "ghcr.io/mlflow"],
                "serviceTypes": ["NodePort", "LoadBalancer"],
                "serviceAccountNames": ["mlflow"],
                "serversPerNamespace": 1,
            }
        ),
    ),
    Accepted(
        "all defaults",
        platform(
            serverDefaults={
                "version": "3.17.2",
                "imagePullSecrets": [{"name": "registry"}],
                "podMetadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "backup": {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "backups"}}},
                "garbageCollection": {"olderThan": "24h"},
            }
        ),
    ),
    Accepted("adoptions", platform(adoptions=["team-a/tracking", "0-1/a"])),
    Accepted(
        "all settings of the bucket",
        s3(
            publicEndpoint="http://localhost:9000",
            region="eu-central-1",
            bucketCreation="Never",
            addressingStyle="Path",
            tls=CA,
            versioning="Enabled",
            lifecycle={"noncurrentVersionExpirationDays": 30},
            encryption={"type": "SSES3"},
        ),
    ),
]
