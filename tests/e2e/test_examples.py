"""Every example works: its servers become Ready, and applying it again changes nothing.

`adapted_documents` contains all differences to the files: addresses of external stores, schedules, and what a single
node with two cores and without a mirror cannot provide. Workload identity only exists on AWS: the test of that example
checks that it is accepted, that the unreachable database is reported, and that nothing changes from then on.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import quote

import pytest
import yaml
from _pytest.mark import ParameterSet

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.api import mlflowplatform
from mlflow_operator.kube import labels
from mlflow_operator.kube.client import FIELD_MANAGER
from mlflow_operator.model import encryption
from mlflow_operator.model.platform import Part, PlatformUse, resolve_platform
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.versions import Images
from tests import cloudnativepg
from tests.e2e import external_stores, timeouts
from tests.e2e.kube import TEST_LABEL, CommandError, Kube, Object
from tests.e2e.server import Server, eventually
from tests.e2e.shared_stores import Platform, create_admin

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
OPERATOR_ACCOUNT = "system:serviceaccount:mlflow-operator:mlflow-operator"
AUDIT_LOGS = "/var/log/kubernetes/audit*.log"
APPLIED_KINDS = ("ConfigMap", "StatefulSet", "Service", "Deployment", "PodDisruptionBudget")
"""Kinds that the operator applies. It creates volume claims, Secrets and Jobs only once."""

CLUSTER_SCOPED_KINDS = ("Namespace", "PriorityClass", mlflowplatform.KIND)
"""Cluster-scoped kinds in the examples."""

OWNED_KINDS = (*APPLIED_KINDS, "PersistentVolumeClaim", "Secret", "Job")
RARE_SCHEDULE = "0 0 29 2 *"
"""Runs only on February 29, so that no CronJob creates a Job during a test."""

SMALL_CPU_REQUEST: Object = {"embedded": {"resources": {"requests": {"cpu": "50m"}}}}

Adaptation = Callable[[Kube, Kube, Platform], tuple[dict[str, dict[str, str]], Object]]
"""Takes the server's namespace, another namespace and the platform. Returns the values of Secrets by name, and a merge
patch of the spec."""


def create_database(ns: Kube, platform: Platform) -> str:
    """Create a database on the platform for the example's server, owned by a user of the same name."""
    name = ns.namespace.replace("-", "_")
    platform.create_migrated_database(name, external_stores.PASSWORD)
    return name


def minio_root_key(platform: Platform) -> dict[str, str]:
    """Return the root key of the platform's MinIO."""
    return {"accessKeyID": platform.minio.access_key, "secretAccessKey": platform.minio.secret_key}


def external_postgres_s3(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's Postgres, and its MinIO, which has no TLS."""
    name = create_database(ns, platform)
    secrets = {
        "tracking-postgres": {"username": name, "password": external_stores.PASSWORD},
        "tracking-s3": minio_root_key(platform),
    }
    return secrets, {
        "database": {"external": {"host": platform.postgres.host, "databaseName": name}},
        "artifacts": {"s3": {"endpoint": platform.minio.endpoint}},
    }


def private_authority(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's Postgres, and a MinIO with a certificate of the same CA. The operator creates the bucket."""
    name = create_database(ns, platform)
    minio = external_stores.start_minio(other_ns, platform.authority)
    login = f"{name}:{quote(external_stores.PASSWORD, safe='')}"
    secrets = {
        "company-ca": {"ca.crt": platform.authority.pem},
        "tracking-postgres": {"uri": f"postgresql://{login}@{platform.postgres.host}:5432/{name}"},
        "tracking-s3": {"accessKeyID": minio.access_key, "secretAccessKey": minio.secret_key},
    }
    return secrets, {"artifacts": {"s3": {"endpoint": minio.endpoint, "bucketCreation": "IfMissing"}}}


def presigned_artifacts(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's MinIO, which clients outside the cluster reach, too."""
    return {"tracking-s3": minio_root_key(platform)}, {
        "artifacts": {"s3": {"endpoint": platform.minio.endpoint}}
    }


def direct_artifacts(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use a SeaweedFS that the server reaches by its Service, and clients by its NodePort."""
    store = external_stores.start_seaweedfs(other_ns)
    secrets = {"tracking-s3": {"accessKeyID": store.access_key, "secretAccessKey": store.secret_key}}
    endpoint = f"http://seaweedfs.{other_ns.namespace}.svc:9000"
    return secrets, {"artifacts": {"s3": {"endpoint": endpoint, "publicEndpoint": store.endpoint}}}


def shared_minio(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's MinIO, without TLS."""
    return {"minio-admin": minio_root_key(platform)}, {
        "artifacts": {"s3": {"endpoint": platform.minio.endpoint}}
    }


def provisioned_postgres(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's Postgres, and an administrator that is not a superuser."""
    create_admin(platform.postgres, "mlflow-admin", "secret")
    secrets = {"postgres-admin": {"username": "mlflow-admin", "password": "secret"}}
    return secrets, {"database": {"provision": {"host": platform.postgres.host}}}


def install_crd(kube: Kube, crd: Object) -> None:
    """Apply a CRD, and wait until kubectl can list its objects.

    The API server writes the condition Established before it serves the kind.
    """
    kube.apply(crd)

    def is_served() -> bool:
        try:
            kube.kubectl("get", crd["metadata"]["name"])
        except CommandError:
            return False
        return True

    eventually(f"{crd['metadata']['name']} is served", is_served, timeouts.STATUS_SECONDS)


def cloudnativepg_cluster(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """CloudNativePG is not installed: the test creates its objects in front of the platform's Postgres."""
    name = "tracking-pg"
    platform.postgres.query("CREATE ROLE mlflow LOGIN PASSWORD 'secret'", "postgres")
    platform.postgres.query("ALTER DATABASE mlflow OWNER TO mlflow", "postgres")
    install_crd(ns, cloudnativepg.CRD)
    ns.apply(
        cloudnativepg.cluster(name),
        cloudnativepg.app_secret(name, ns.namespace, "mlflow", "mlflow", "secret"),
        cloudnativepg.service(name, platform.postgres.host),
        platform.ca_secret(f"{name}-ca"),
    )
    ns.kubectl(*cloudnativepg.status_patch_arguments(name, healthy=True))
    return {}, {}


def mirrored_images(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Without a mirror, use the original image names. The pull Secret may be missing: no registry requires it."""
    pins = ns.settings.pins
    return {}, {
        "image": pins["IMAGE_MLFLOW"],
        "database": {"embedded": {"image": pins["IMAGE_POSTGRES"]}},
        "artifacts": {"embedded": {"image": pins["IMAGE_MINIO"]}},
    }


def production(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """On one node with two cores, both pods run on the same node and request less CPU."""
    pod_template = {"podTemplate": {"spec": {"topologySpreadConstraints": None}}}
    return {}, {**pod_template, "database": SMALL_CPU_REQUEST, "artifacts": SMALL_CPU_REQUEST}


def backup(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use the platform's MinIO for backups, and a schedule that is not due during the test."""
    return {"tracking-backup": minio_root_key(platform)}, {
        "backup": {"schedule": RARE_SCHEDULE, "s3": {"endpoint": platform.minio.endpoint}}
    }


def clean_up(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use a schedule that is not due during the test."""
    return {}, {"garbageCollection": {"schedule": RARE_SCHEDULE}}


def aws_workload_identity(
    ns: Kube, other_ns: Kube, platform: Platform
) -> tuple[dict[str, dict[str, str]], Object]:
    """Use an address that rejects connections at once: with a host name, the error differs if DNS is slow."""
    return {"tracking-postgres": {"uri": "postgresql://mlflow:secret@127.0.0.1:5432/mlflow"}}, {}


def restore(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use a MinIO without backups. test_embedded restores a backup."""
    minio = external_stores.start_minio(other_ns, None)
    minio.client().create_bucket(Bucket="mlflow-backups")
    secrets = {"tracking-backup": {"accessKeyID": minio.access_key, "secretAccessKey": minio.secret_key}}
    return secrets, {"restoreFrom": {"s3": {"endpoint": minio.endpoint}}}


def encryption_keys(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use random keys."""
    keys = {
        "passphrase": token_urlsafe(24),
        "passphrase-version": "2",
        "webhook-key": encryption.fernet_key(token_urlsafe(24)),
        "flask-secret-key": token_urlsafe(24),
    }
    return {"tracking-keys": keys}, {}


def authentication(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Use a random password."""
    return {"tracking-administrator": {"password": token_urlsafe(24)}}, {}


def team(ns: Kube, other_ns: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Request less CPU for the database, because the node has only two cores."""
    return {}, {"database": SMALL_CPU_REQUEST}


ADAPTATIONS: dict[str, Adaptation] = {
    "external-postgres-s3": external_postgres_s3,
    "private-authority": private_authority,
    "presigned-artifacts": presigned_artifacts,
    "direct-artifacts": direct_artifacts,
    "shared-minio": shared_minio,
    "provisioned-postgres": provisioned_postgres,
    "cloudnativepg": cloudnativepg_cluster,
    "mirrored-images": mirrored_images,
    "production": production,
    "aws-workload-identity": aws_workload_identity,
    "backup": backup,
    "clean-up": clean_up,
    "restore": restore,
    "encryption-keys": encryption_keys,
    "authentication": authentication,
    "team": team,
}
"""Adaptations by example. Examples that are not listed are applied unchanged."""

REPRESENTATIVE = ("external-postgres-s3",)
"""Examples that `make test` applies. tests/apiserver checks that the API server accepts all of them."""

LONG_RUNNING = pytest.mark.long_running(
    reason="one of many; `make test` runs REPRESENTATIVE, and tests/apiserver/test_examples.py checks all schemas"
)
MARKS = {
    "direct-artifacts": [pytest.mark.second_images],
    "seaweedfs": [pytest.mark.second_images],
}


def cases() -> list[ParameterSet]:
    """Return each example with its marks."""
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=[*MARKS.get(path.stem, ()), *(() if path.stem in REPRESENTATIVE else (LONG_RUNNING,))],
        )
        for path in EXAMPLES
        if path.stem != "cloudnativepg"  # test_cloudnativepg runs it, because both install the same CRD
    ]


def adapted_documents(
    example: Path, ns: Kube, other_ns: Kube, create_ns: Callable[[], Kube], platform: Platform
) -> list[Object]:
    """Return the documents of an example, adapted to this cluster and to the test's namespaces."""
    text = (
        example.read_text()
        .replace("team-a", ns.namespace)
        .replace("namespace: platform", f"namespace: {other_ns.namespace}")
    )
    if "mlflow-platform" in text:
        text = text.replace("mlflow-platform", create_ns().namespace)
    documents = [document for document in yaml.safe_load_all(text) if document]
    secrets, change = (
        ADAPTATIONS[example.stem](ns, other_ns, platform) if example.stem in ADAPTATIONS else ({}, {})
    )
    for document in documents:
        if document["kind"] == "Secret" and document["metadata"]["name"] in secrets:
            document["stringData"] = secrets.pop(document["metadata"]["name"])
        if document["kind"] not in CLUSTER_SCOPED_KINDS:
            document["metadata"].setdefault("namespace", ns.namespace)
        if document["kind"] == "Namespace":  # it exists already; keep the test's label
            document["metadata"]["labels"][TEST_LABEL] = "true"
        if document["kind"] == mlflowplatform.KIND:
            document["metadata"]["name"] = ns.namespace
        if document["kind"] == api.KIND:
            merge(document["spec"], change)
    assert not secrets, "the example has no such Secrets"
    return documents


def merge(target: Object, change: Object) -> None:
    """Apply a JSON merge patch in place."""
    for key, value in change.items():
        if value is None:
            target.pop(key)
        elif isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


@pytest.mark.parametrize("example", cases())
def test_examples_are_idempotent(
    example: Path, ns: Kube, other_ns: Kube, create_ns: Callable[[], Kube], platform: Platform
) -> None:
    """Applying it again changes no object, the operator writes nothing, and a dry run shows no difference."""
    check_idempotence(example, ns, other_ns, create_ns, platform)


def check_idempotence(
    example: Path, ns: Kube, other_ns: Kube, create_ns: Callable[[], Kube], platform: Platform
) -> None:
    """Apply an example twice."""
    documents = adapted_documents(example, ns, other_ns, create_ns, platform)
    metadata = [document["metadata"] for document in documents if document["kind"] == api.KIND]
    server, *others = (Server(ns.in_namespace(meta["namespace"]), meta["name"]) for meta in metadata)
    try:
        apply(ns, documents)
        if example.stem == "aws-workload-identity":
            server.wait_for("DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.RESYNC_SECONDS)
        elif example.stem == "restore":
            server.wait_for("SchemaReady", "False", "RestoreRefused")
            eventually("its Job has ended", lambda: jobs_finished(ns), timeouts.STATUS_SECONDS)
        else:
            for other_server in (server, *others):
                other_server.wait_ready()
            eventually("Kubernetes' controllers are done", lambda: is_settled(ns), timeouts.STATUS_SECONDS)
        check_second_apply(ns, server, documents)
        assert dry_run_differences(server) == {}
        if example.stem == "team":
            check_roles(ns)
    finally:
        delete_cluster_scoped(ns, documents)


def jobs_finished(kube: Kube) -> bool:
    """Whether there are Jobs and all have finished."""
    final_types = {"Complete", "Failed"}
    types_per_job = [{c["type"] for c in job["status"].get("conditions") or ()} for job in kube.list("Job")]
    return bool(types_per_job) and all(types & final_types for types in types_per_job)


def apply(kube: Kube, documents: list[Object]) -> list[str]:
    """Apply all documents by one `kubectl apply`; returns kubectl's output lines."""
    return kube.run("kubectl", "apply", "-f", "-", stdin=yaml.safe_dump_all(documents)).splitlines()


def check_second_apply(ns: Kube, server: Server, documents: list[Object]) -> None:
    """Applying again changes nothing, neither by kubectl nor by the operator, which is triggered to reconcile."""
    before, expected_config = resource_versions(ns), client_config(ns, server)
    start = datetime.now(UTC)
    generation = server.resource()["metadata"]["generation"]
    output = apply(ns, documents)
    changed = {line for line in output if not line.endswith(" unchanged")}
    # kubectl compares `stringData` with the stored Secret, which has none. The check of resourceVersions below shows
    # that the Secret is not changed.
    assert changed <= {line for line in output if line.startswith("secret/")}
    # Change a ConfigMap twice. Once the second change is repaired, the first reconcile is complete.
    for _ in range(2):
        ns.patch("ConfigMap", server.names.client, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
        eventually(
            "the operator has repaired the ConfigMap",
            lambda: client_config(ns, server) == expected_config,
            timeouts.REPAIR_SECONDS,
        )
    patched = ("ConfigMap", server.names.client)
    after = resource_versions(ns)
    assert {key: value for key, value in after.items() if key != patched and before.get(key) != value} == {}
    assert after.keys() == before.keys()
    assert server.resource()["metadata"]["generation"] == generation
    assert operator_writes(ns, start) == 2 * [("patch", "configmaps", patched[1])]


def client_config(kube: Kube, server: Server) -> Object:
    """Return the data of the ConfigMap for clients."""
    data: Object = kube.require("ConfigMap", server.names.client)["data"]
    return data


def resource_versions(kube: Kube) -> dict[tuple[str, str], str]:
    """Return the resourceVersions of the operator's objects, and of the example's Secrets and ConfigMaps."""
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"]
        for kind in OWNED_KINDS
        for obj in kube.list(kind)
    }


def operator_writes(kube: Kube, since: datetime) -> list[tuple[str, str, str]]:
    """Return the operator's writes in the namespace since a time in order (verb, resource, name), from the audit log.

    By time and not by position, because the API server rotates the log and deletes old files.
    """
    # The name of the older file is sorted first.
    output = kube.node_command("sh", "-c", f'grep -hF \'"namespace":"{kube.namespace}"\' {AUDIT_LOGS}')
    lines = output.splitlines()
    entries = [json.loads(line) for line in lines if f'"{OPERATOR_ACCOUNT}"' in line]
    return [
        (entry["verb"], entry["objectRef"]["resource"], entry["objectRef"].get("name", ""))
        for entry in entries
        if datetime.fromisoformat(entry["stageTimestamp"]) >= since
    ]


def is_settled(kube: Kube) -> bool:
    """Whether Kubernetes' controllers have written the final status of the operator's objects."""
    for deployment in kube.list("Deployment"):
        status = deployment["status"]
        complete = [c for c in status.get("conditions", []) if c.get("reason") == "NewReplicaSetAvailable"]
        desired_replicas = deployment["spec"]["replicas"]
        counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        if not complete or counts != {desired_replicas}:
            return False
    budgets = [budget["status"] for budget in kube.list("PodDisruptionBudget")]
    return all(status["currentHealthy"] == status["expectedPods"] for status in budgets)


def dry_run_differences(server: Server) -> dict[str, list[str]]:
    """Return the fields that applying the desired objects would change, by a server-side dry run.

    Only what does not follow from the spec is copied from the observed object: its owner references, and the digests
    of what the operator applied and of the Secrets that it read.
    """
    kube = server.kube
    resource = api.parse(server.resource())
    defaults = cluster_defaults(Images(), "cluster.local", kube.get("Service", server.names.service))
    resolved = resolve(resource, defaults, platform_use(server))
    desired_objects = [obj for obj in desired.objects(resolved) if obj["kind"] in APPLIED_KINDS]
    changed_fields: dict[str, list[str]] = {}
    for obj in desired_objects:
        observed = kube.get(obj["kind"], obj["metadata"]["name"])
        if observed is None:
            continue  # not created yet; for Ready servers `wait_ready` has passed before
        meta = obj["metadata"]
        meta["ownerReferences"] = observed["metadata"]["ownerReferences"]
        meta["annotations"] = meta.get("annotations", {}) | annotation(observed, labels.APPLIED_DIGEST)
        if obj["kind"] == "Deployment":
            template = obj["spec"]["template"]["metadata"]
            template["annotations"] |= annotation(observed["spec"]["template"], labels.INPUTS_DIGEST)
        output = kube.kubectl(
            "apply", "--server-side", "--dry-run=server", f"--field-manager={FIELD_MANAGER}",
            "-o", "json", "-f", "-", stdin=json.dumps(obj),
        )  # fmt: skip
        dry_run, current = comparable_fields(json.loads(output)), comparable_fields(observed)
        if changed := [
            field for field in current.keys() | dry_run.keys() if current.get(field) != dry_run.get(field)
        ]:
            changed_fields[f"{obj['kind']} {meta['name']}"] = changed
    return changed_fields


def platform_use(server: Server) -> PlatformUse | None:
    """Return what the server uses of a platform, None if it uses none."""
    recorded = server.resource()["status"].get("platform")
    if not recorded:
        return None
    platform = resolve_platform(
        mlflowplatform.parse(server.kube.require(mlflowplatform.KIND, recorded["name"]))
    )
    namespace = server.kube.require("Namespace", server.kube.namespace)
    parts = frozenset(Part(part) for part in recorded["parts"])
    return PlatformUse(platform, parts, namespace["metadata"]["uid"])


def annotation(obj: Object, key: str) -> dict[str, str]:
    """Return one annotation as a dict."""
    return {key: obj["metadata"]["annotations"][key]}


def comparable_fields(obj: Object) -> Object:
    """Return the fields that are compared: spec, data, labels, annotations and owner references."""
    metadata_fields = ("labels", "annotations", "ownerReferences")
    meta = {key: obj["metadata"].get(key) for key in metadata_fields}
    return {**{part: obj.get(part) for part in ("spec", "data", "binaryData")}, **meta}


def check_roles(ns: Kube) -> None:
    """The team's groups have the permissions that the file describes, and no others."""

    def is_allowed(group: str, verb: str, what: str) -> bool:
        resource, _, subresource = what.partition("/")
        command = f"kubectl auth can-i {verb} {resource} --subresource={subresource} -n {ns.namespace}"
        answer = ns.run("sh", "-c", f"{command} --as user --as-group {group} || true")
        return answer.strip() == "yes"

    users, maintainers = ns.namespace, f"{ns.namespace}-maintainers"
    assert is_allowed(users, "get", "mlflowservers")
    assert is_allowed(users, "create", "pods/portforward")
    assert not is_allowed(users, "get", "secrets")
    assert not is_allowed(users, "delete", "mlflowservers")
    assert is_allowed(maintainers, "delete", "mlflowservers")
    assert is_allowed(maintainers, "patch", "mlflowservers/scale")


def delete_cluster_scoped(ns: Kube, documents: list[Object]) -> None:
    """Delete cluster-scoped objects, which are not deleted with the namespace.

    A platform is kept until the namespace with its servers is deleted.
    """
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if kind in CLUSTER_SCOPED_KINDS and kind != "Namespace":
            ns.kubectl("delete", kind, name, "--ignore-not-found", "--wait=false")
