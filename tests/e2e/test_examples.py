"""Every example works: applied it gets ready, and applied once more it is no work for anybody.

`fitted` is all in which the test departs from the files: where stores of the reader's own are, and what a single node
of two cores, without a mirror, can't give. What AWS alone can give, an identity for pods, is not to be had here:
that example is held to being accepted, to a sentence about the database that does not answer, and to being left alone
from then on.
"""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from _pytest.mark import ParameterSet

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube import labels
from mlflow_operator.kube.client import FIELD_MANAGER
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.versions import Images
from tests import cloudnativepg
from tests.e2e import external_stores, timeouts
from tests.e2e.kube import TEST_LABEL, Kube, Object
from tests.e2e.server import Server, eventually
from tests.e2e.shared_stores import Platform, make_admin

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
ACCOUNT = "system:serviceaccount:mlflow-operator:mlflow-operator"
AUDIT = "/var/log/kubernetes/audit*.log"
APPLIED = ("ConfigMap", "StatefulSet", "Service", "Deployment", "PodDisruptionBudget")
"""Kinds that the operator applies; volumes, Secrets and Jobs it creates, once."""

WHOLE_CLUSTER = ("Namespace", "PriorityClass")
"""Kinds in the examples that are in no namespace."""

OWNED = (*APPLIED, "PersistentVolumeClaim", "Secret", "Job")
LITTLE_CPU: Object = {"embedded": {"resources": {"requests": {"cpu": "50m"}}}}

Fit = Callable[[Kube, Kube, Platform], tuple[dict[str, dict[str, str]], Object]]
"""From the server's namespace, another one and the platform to the contents of Secrets by name, and a merge patch of
the spec."""


def database_of(ns: Kube, platform: Platform) -> str:
    """A database on the platform for the example's server, owned by a user of the same name."""
    name = ns.namespace.replace("-", "_")
    platform.make_migrated_database(name, external_stores.PASSWORD)
    return name


def key_of(platform: Platform) -> dict[str, str]:
    """The root key of the platform's MinIO."""
    return {"accessKeyID": platform.minio.access_key, "secretAccessKey": platform.minio.secret_key}


def external(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's Postgres and MinIO; the latter without TLS."""
    name = database_of(ns, platform)
    secrets = {
        "tracking-postgres": {"username": name, "password": external_stores.PASSWORD},
        "tracking-s3": key_of(platform),
    }
    return secrets, {
        "database": {"external": {"host": platform.postgres.host, "databaseName": name}},
        "artifacts": {"s3": {"endpoint": platform.minio.endpoint}},
    }


def private(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's Postgres, and a MinIO with a certificate of the same authority. The server makes the bucket."""
    name = database_of(ns, platform)
    minio = external_stores.minio(other, platform.authority)
    login = f"{name}:{quote(external_stores.PASSWORD, safe='')}"
    secrets = {
        "company-ca": {"ca.crt": platform.authority.pem},
        "tracking-postgres": {"uri": f"postgresql://{login}@{platform.postgres.host}:5432/{name}"},
        "tracking-s3": {"accessKeyID": minio.access_key, "secretAccessKey": minio.secret_key},
    }
    return secrets, {"artifacts": {"s3": {"endpoint": minio.endpoint, "bucketCreation": "IfMissing"}}}


def presigned(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's MinIO, which clients outside the cluster reach, too."""
    return {"tracking-s3": key_of(platform)}, {"artifacts": {"s3": {"endpoint": platform.minio.endpoint}}}


def direct(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """A SeaweedFS that its server reaches by its Service, and clients by a node port."""
    store = external_stores.seaweedfs(other)
    secrets = {"tracking-s3": {"accessKeyID": store.access_key, "secretAccessKey": store.secret_key}}
    endpoint = f"http://seaweedfs.{other.namespace}.svc:9000"
    return secrets, {"artifacts": {"s3": {"endpoint": endpoint, "publicEndpoint": store.endpoint}}}


def shared_minio(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's MinIO, without TLS, and a Secret of its administrator in another namespace."""
    s3 = {"endpoint": platform.minio.endpoint, "adminSecretRef": {"namespace": other.namespace}}
    return {"minio-admin": key_of(platform)}, {"artifacts": {"s3": s3}}


def provisioned(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's Postgres, and an administrator who is no superuser."""
    make_admin(platform.postgres, "mlflow-admin", "secret")
    secrets = {"postgres-admin": {"username": "mlflow-admin", "password": "secret"}}
    return secrets, {"database": {"provision": {"host": platform.postgres.host}}}


def cluster(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """CloudNativePG is not there: the test makes what it would, in front of the platform's Postgres."""
    name = "tracking-pg"
    platform.postgres.query("CREATE ROLE mlflow LOGIN PASSWORD 'secret'", "postgres")
    platform.postgres.query("ALTER DATABASE mlflow OWNER TO mlflow", "postgres")
    ns.apply(cloudnativepg.DEFINITION)
    definition = cloudnativepg.DEFINITION["metadata"]["name"]
    ns.kubectl("wait", "--for=condition=Established", "crd", definition, "--timeout=60s")
    ns.apply(
        cloudnativepg.cluster(name),
        cloudnativepg.app_secret(name, ns.namespace, "mlflow", "mlflow", "secret"),
        cloudnativepg.service(name, platform.postgres.host),
        platform.certificate(f"{name}-ca"),
    )
    ns.kubectl(*cloudnativepg.report(name, healthy=True))
    return {}, {}


def mirrored(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """There is no mirror: the images by their own names. The login need not exist where none is asked for."""
    pins = ns.settings.pins
    return {}, {
        "image": pins["IMAGE_MLFLOW"],
        "database": {"embedded": {"image": pins["IMAGE_POSTGRES"]}},
        "artifacts": {"embedded": {"image": pins["IMAGE_MINIO"]}},
    }


def production(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """One node of two cores: both pods on it, and less of it reserved."""
    spread = {"podTemplate": {"spec": {"topologySpreadConstraints": None}}}
    return {}, {**spread, "database": LITTLE_CPU, "artifacts": LITTLE_CPU}


def backup(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """The platform's MinIO for the backups."""
    return {"tracking-backup": key_of(platform)}, {"backup": {"s3": {"endpoint": platform.minio.endpoint}}}


def restore(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """A MinIO in which there is no backup yet: what it does with one, its own tests tell."""
    minio = external_stores.minio(other, None)
    minio.client().create_bucket(Bucket="mlflow-backups")
    secrets = {"tracking-backup": {"accessKeyID": minio.access_key, "secretAccessKey": minio.secret_key}}
    return secrets, {"restoreFrom": {"s3": {"endpoint": minio.endpoint}}}


def team(ns: Kube, other: Kube, platform: Platform) -> tuple[dict[str, dict[str, str]], Object]:
    """Two cores are less than its database asks for."""
    return {}, {"database": LITTLE_CPU}


FITS: dict[str, Fit] = {
    "external-postgres-s3": external,
    "private-authority": private,
    "presigned-artifacts": presigned,
    "direct-artifacts": direct,
    "shared-minio": shared_minio,
    "provisioned-postgres": provisioned,
    "cloudnativepg": cluster,
    "mirrored-images": mirrored,
    "production": production,
    "backup": backup,
    "restore": restore,
    "team": team,
}
"""Examples that are not listed are applied to the letter."""

REPRESENTATIVE = ("external-postgres-s3",)
"""Examples that `make test` applies. tests/apiserver has the API server accept all of them."""

LONG_RUNNING = pytest.mark.long_running(
    reason="one of many; tests/apiserver/test_examples.py has the API server accept each; REPRESENTATIVE run"
)
MARKS = {
    "direct-artifacts": [pytest.mark.second_images],
    "seaweedfs": [pytest.mark.second_images],
}


def cases() -> list[ParameterSet]:
    """Each example with its marks."""
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=[*MARKS.get(path.stem, ()), *(() if path.stem in REPRESENTATIVE else (LONG_RUNNING,))],
        )
        for path in EXAMPLES
        if path.stem != "cloudnativepg"  # it installs a CRD, as test_cloudnativepg does, which runs it
    ]


def fitted(
    example: Path, ns: Kube, other: Kube, more: Callable[[], Kube], platform: Platform
) -> list[Object]:
    """The documents of an example, for the namespaces of this test."""
    text = (
        example.read_text()
        .replace("team-a", ns.namespace)
        .replace("team-b", other.namespace)
        .replace("namespace: platform", f"namespace: {other.namespace}")
    )
    if "ml-platform" in text:
        text = text.replace("ml-platform", more().namespace)
    documents = [document for document in yaml.safe_load_all(text) if document]
    secrets, change = FITS[example.stem](ns, other, platform) if example.stem in FITS else ({}, {})
    for document in documents:
        if document["kind"] == "Secret" and document["metadata"]["name"] in secrets:
            document["stringData"] = secrets.pop(document["metadata"]["name"])
        if document["kind"] not in WHOLE_CLUSTER:
            document["metadata"].setdefault("namespace", ns.namespace)
        if document["kind"] == "Namespace":  # which is there: what marks it as a test's stays
            document["metadata"]["labels"][TEST_LABEL] = "true"
        if document["kind"] == api.KIND:
            merge(document["spec"], change)
    assert not secrets, "the example has no such Secrets"
    return documents


def merge(target: Object, change: Object) -> None:
    """A JSON merge patch, in place."""
    for key, value in change.items():
        if value is None:
            target.pop(key)
        elif isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


@pytest.mark.parametrize("example", cases())
def test_examples_are_idempotent(
    example: Path, ns: Kube, other_ns: Kube, more_ns: Callable[[], Kube], platform: Platform
) -> None:
    """Ready; then nothing moves, the operator writes nothing, and all is as it would apply it."""
    check(example, ns, other_ns, more_ns, platform)


def check(example: Path, ns: Kube, other_ns: Kube, more_ns: Callable[[], Kube], platform: Platform) -> None:
    """Applies an example twice."""
    documents = fitted(example, ns, other_ns, more_ns, platform)
    written = [document["metadata"] for document in documents if document["kind"] == api.KIND]
    server, *others = (Server(ns.within(meta["namespace"]), meta["name"]) for meta in written)
    try:
        apply(ns, documents)
        if example.stem == "aws-workload-identity":
            server.until("DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.NOTICED)
        elif example.stem == "restore":
            server.until("SchemaReady", "False", "RestoreRefused")
            eventually("its Job has ended", lambda: ended(ns), timeouts.SETTLED)
        else:
            for each in (server, *others):
                each.ready()
            eventually("all of it has settled", lambda: settled(ns), timeouts.SETTLED)
        check_again(ns, server, documents)
        assert differences(server) == {}
        if example.stem == "team":
            check_roles(ns)
    finally:
        leave(ns, documents)


def ended(kube: Kube) -> bool:
    """Whether every Job is over, and says so."""
    over = {"Complete", "Failed"}
    said = [{c["type"] for c in job["status"].get("conditions") or ()} for job in kube.list("Job")]
    return bool(said) and all(types & over for types in said)


def apply(kube: Kube, documents: list[Object]) -> list[str]:
    """One `kubectl apply` of all of it; what kubectl says of each."""
    return kube.run("kubectl", "apply", "-f", "-", stdin=yaml.safe_dump_all(documents)).splitlines()


def check_again(ns: Kube, server: Server, documents: list[Object]) -> None:
    """Applied once more nothing is changed, neither by kubectl nor by the operator, which is made to look."""
    before, written, right = moves(ns), writes(ns), told(ns, server)
    generation = server.live()["metadata"]["generation"]
    said = apply(ns, documents)
    changed = {line for line in said if not line.endswith(" unchanged")}
    # kubectl compares `stringData` with what is stored, which has none; that nothing is stored anew is seen below.
    assert changed <= {line for line in said if line.startswith("secret/")}
    # Something to mend, twice: the second time it is mended, what it looked at the first time is done with.
    for _ in range(2):
        ns.patch("ConfigMap", server.names.client, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
        eventually("the operator has looked", lambda: told(ns, server) == right, timeouts.REPAIRED)
    mended = ("ConfigMap", server.names.client)
    after = moves(ns)
    assert {key: value for key, value in after.items() if key != mended and before.get(key) != value} == {}
    assert after.keys() == before.keys()
    assert server.live()["metadata"]["generation"] == generation
    assert writes(ns)[len(written) :] == 2 * [("patch", "configmaps", mended[1])]


def told(kube: Kube, server: Server) -> Object:
    """What clients are told."""
    found: Object = kube.need("ConfigMap", server.names.client)["data"]
    return found


def moves(kube: Kube) -> dict[tuple[str, str], str]:
    """The resourceVersion of every object that the operator made, and of Secrets and ConfigMaps of the example."""
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"]
        for kind in OWNED
        for obj in kube.list(kind)
    }


def writes(kube: Kube) -> list[tuple[str, str, str]]:
    """What the operator wrote in the namespace so far, in order, as the API server's own record has it."""
    # The older file's name comes first.
    found = kube.node_command("sh", "-c", f'grep -hF \'"namespace":"{kube.namespace}"\' {AUDIT}')
    lines = found.splitlines()
    entries = [json.loads(line) for line in lines if f'"{ACCOUNT}"' in line]
    return [
        (entry["verb"], entry["objectRef"]["resource"], entry["objectRef"].get("name", ""))
        for entry in entries
    ]


def settled(kube: Kube) -> bool:
    """Whether Kubernetes' own controllers have said their last word about what the operator made."""
    for deployment in kube.list("Deployment"):
        status = deployment["status"]
        done = [c for c in status.get("conditions", []) if c.get("reason") == "NewReplicaSetAvailable"]
        wanted = deployment["spec"]["replicas"]
        counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        if not done or counts != {wanted}:
            return False
    budgets = [budget["status"] for budget in kube.list("PodDisruptionBudget")]
    return all(status["currentHealthy"] == status["expectedPods"] for status in budgets)


def differences(server: Server) -> dict[str, list[str]]:
    """Where applying what the spec asks for would change something, by a server-side dry run of it all.

    Only what is no part of the spec is taken from the live object: who owns it, and the digests by which the operator
    knows what it applied and which Secrets it read.
    """
    kube = server.kube
    resource = api.parse(server.live())
    around = cluster_defaults(Images(), "cluster.local", kube.get("Service", server.names.service))
    wanted = [obj for obj in desired.objects(resolve(resource, around)) if obj["kind"] in APPLIED]
    found: dict[str, list[str]] = {}
    for obj in wanted:
        live = kube.get(obj["kind"], obj["metadata"]["name"])
        if live is None:
            continue  # it waits for something: ready() would not have passed
        meta = obj["metadata"]
        meta["ownerReferences"] = live["metadata"]["ownerReferences"]
        meta["annotations"] = meta.get("annotations", {}) | digest(live, labels.APPLIED)
        if obj["kind"] == "Deployment":
            template = obj["spec"]["template"]["metadata"]
            template["annotations"] |= digest(live["spec"]["template"], labels.INPUTS)
        said = kube.kubectl(
            "apply", "--server-side", "--dry-run=server", f"--field-manager={FIELD_MANAGER}",
            "-o", "json", "-f", "-", stdin=json.dumps(obj),
        )  # fmt: skip
        would, now = content(json.loads(said)), content(live)
        if changed := [part for part in now.keys() | would.keys() if now.get(part) != would.get(part)]:
            found[f"{obj['kind']} {meta['name']}"] = changed
    return found


def digest(obj: Object, key: str) -> dict[str, str]:
    """One annotation."""
    return {key: obj["metadata"]["annotations"][key]}


def content(obj: Object) -> Object:
    """What people write of an object, in the order in which it is compared."""
    kept = ("labels", "annotations", "ownerReferences")
    meta = {key: obj["metadata"].get(key) for key in kept}
    return {**{part: obj.get(part) for part in ("spec", "data", "binaryData")}, **meta}


def check_roles(ns: Kube) -> None:
    """The team's groups may do what the file says, and no more."""

    def may(group: str, verb: str, what: str) -> bool:
        resource, _, subresource = what.partition("/")
        asked = f"kubectl auth can-i {verb} {resource} --subresource={subresource} -n {ns.namespace}"
        answer = ns.run("sh", "-c", f"{asked} --as somebody --as-group {group} || true")
        return answer.strip() == "yes"

    users, maintainers = ns.namespace, f"{ns.namespace}-maintainers"
    assert may(users, "get", "mlflowservers")
    assert may(users, "create", "pods/portforward")
    assert not may(users, "get", "secrets")
    assert not may(users, "delete", "mlflowservers")
    assert may(maintainers, "delete", "mlflowservers")
    assert may(maintainers, "patch", "mlflowservers/scale")


def leave(ns: Kube, documents: list[Object]) -> None:
    """Takes away what has no namespace to go with."""
    for document in documents:
        if document["kind"] == "PriorityClass":
            ns.kubectl("delete", "priorityclass", document["metadata"]["name"], "--ignore-not-found")
