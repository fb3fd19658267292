"""The manifests of a server: valid for every supported Kubernetes version, restricted, and consistent."""

import json
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator import render as desired
from mlflow_operator.api.pods import PodComponent
from mlflow_operator.kube import kinds, labels, pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import client_config, deployment, seaweedfs
from mlflow_operator.model.names import Names
from mlflow_operator.model.owned_objects import fixed_names
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.secrets import server_secret, text_values
from tests.unit.job_templates import job_templates
from tests.unit.kubernetes_schemas import validate_object
from tests.unit.servers import env, pod_specs, server
from tests.unit.snapshots import EXAMPLES, RECORDED_MANIFESTS, manifest, objects

VERSIONS = ["1.30", "1.34"]
GENERATED = desired.GeneratedValues("user", "password", "access", "secret", "rollout", "passphrase")

EXTERNAL: Object = {
    "replicas": 2,
    "database": {
        "external": {
            "host": "db",
            "credentialsSecretRef": {"name": "db"},
            "tls": {"mode": "VerifyFull", "caSecretRef": {"name": "db-ca"}},
        }
    },
    "artifacts": {
        "s3": {
            "endpoint": "https://s3:9000",
            "bucket": "models",
            "prefix": "team/a",
            "credentialsSecretRef": {"name": "keys"},
            "tls": {"caSecretRef": {"name": "s3-ca"}},
        }
    },
}

SEAWEEDFS: Object = {"artifacts": {"embedded": {"engine": "SeaweedFS", "storage": {"size": "2Gi"}}}}


def all_objects(spec: Object | None = None) -> list[Object]:
    """All objects for a spec, including Secrets."""
    resolved = server(spec)
    return [*desired.secrets(resolved, GENERATED), *desired.objects(resolved)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "spec",
    [{}, EXTERNAL, {"suspend": True}, SEAWEEDFS],
    ids=["empty", "external", "suspended", "seaweedfs"],
)
def test_objects_are_valid_for_kubernetes(spec: Object, version: str) -> None:
    """By strict validation against Kubernetes' schemas: the API server drops an unknown field silently."""
    for obj in all_objects(spec):
        validate_object(obj, version)


@pytest.mark.parametrize("spec", [{}, EXTERNAL, SEAWEEDFS], ids=["empty", "external", "seaweedfs"])
def test_all_pods_meet_the_restricted_pod_security_standard(spec: Object) -> None:
    """In addition: read-only root file system, no service account token, no Service environment variables."""
    specs = list(pod_specs(all_objects(spec)))
    assert specs
    for pod in specs:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert container["resources"]["limits"]["memory"]


def test_pod_settings_apply_to_all_pods() -> None:
    """Clusters with a mirror, taints or restricted user IDs need the settings in one place only."""
    asked: Object = {
        "imagePullSecrets": [{"name": "mirror"}],
        "nodeSelector": {"pool": "ml"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "priorityClassName": "ml",
        "securityContext": {"runAsUser": 1000650000, "fsGroup": 1000650000},
    }
    specs = list(pod_specs(all_objects({"podTemplate": {"spec": asked}})))
    assert len(specs) == 4
    for pod in specs:
        assert pod["imagePullSecrets"] == asked["imagePullSecrets"]
        assert pod["nodeSelector"] == asked["nodeSelector"]
        assert pod["tolerations"] == asked["tolerations"]
        assert pod["priorityClassName"] == "ml"
        assert pod["securityContext"]["runAsUser"] == 1000650000
        assert pod["securityContext"]["runAsNonRoot"] is True


COMPONENT_NAMES = {
    labels.SERVER_POD: "Server",
    labels.DATABASE_POD: "Database",
    labels.ARTIFACT_STORE_POD: "ArtifactStore",
    labels.MIGRATION_POD: "Migration",
    labels.BACKUP_POD: "Backup",
    labels.GARBAGE_COLLECTION_POD: "GarbageCollection",
}


def _pod_metadata(spec: Object) -> dict[str, Object]:
    """Metadata of the pods of all components, by component."""
    found = {}
    for obj in all_objects(SERVER_WITH_JOBS | spec):
        template = obj.get("spec", {}).get("jobTemplate", obj).get("spec", {}).get("template")
        if template:
            found[template["metadata"]["labels"][labels.COMPONENT]] = template["metadata"]
    assert found.keys() == COMPONENT_NAMES.keys()
    return found


SERVER_WITH_JOBS: Object = {
    "backup": {"s3": {"bucket": "backups"}},
    "garbageCollection": {},
}


@pytest.mark.parametrize("component", COMPONENT_NAMES)
def test_labels_and_annotations_can_be_set_for_the_pods_of_each_component(component: str) -> None:
    """For example to exclude them from a service mesh. The labels of selectors take precedence."""
    name = COMPONENT_NAMES[component]
    metadata = {"labels": {"mesh": name, labels.SERVER: "other"}, "annotations": {"inject": name}}
    pods = _pod_metadata({"podTemplate": {"components": [{"name": name, "metadata": metadata}]}})
    assert pods[component]["labels"]["mesh"] == name
    assert pods[component]["labels"][labels.SERVER] == "a"
    assert pods[component]["annotations"]["inject"] == name
    others = [pod for other, pod in pods.items() if other != component]
    assert not any("mesh" in pod["labels"] or "inject" in pod.get("annotations", {}) for pod in others)


def test_labels_can_be_set_for_the_pods_of_all_components_at_once() -> None:
    """For example to exclude every pod of a server from a service mesh: also those of Jobs that run rarely."""
    components = [
        {"name": component.value, "metadata": {"labels": {"mesh": component.value}}}
        for component in PodComponent
    ]
    spec = {"podTemplate": {"components": components}}
    assert {pod["labels"]["mesh"] for pod in _pod_metadata(spec).values()} == {*COMPONENT_NAMES.values()}
    jobs = [template["metadata"]["labels"] for template in job_templates(spec)]
    assert {pod[labels.COMPONENT] for pod in jobs} == {*labels.JOB_PODS}
    names = {pod["mesh"] for pod in jobs}
    assert names | {*COMPONENT_NAMES.values()} == {component.value for component in PodComponent}
    assert len(names) == len(labels.JOB_PODS)


def test_labels_of_a_component_take_precedence_over_those_of_all_pods() -> None:
    """Metadata of all pods that run MLflow does not apply to the pods of embedded stores."""
    template = {
        "metadata": {"labels": {"inject": "true"}},
        "components": [{"name": "Backup", "metadata": {"labels": {"inject": "false"}}}],
    }
    injected = {
        component: pod["labels"].get("inject")
        for component, pod in _pod_metadata({"podTemplate": template}).items()
    }
    assert injected == {
        labels.SERVER_POD: "true",
        labels.MIGRATION_POD: "true",
        labels.GARBAGE_COLLECTION_POD: "true",
        labels.BACKUP_POD: "false",
        labels.DATABASE_POD: None,
        labels.ARTIFACT_STORE_POD: None,
    }


@given(st.text(st.sampled_from("a \n\t\r:#|-\x85\u2028\u2029\ufeffé\x07")))
def test_yaml_contains_the_texts_of_the_manifests_unchanged(text: str) -> None:
    """Also texts with characters that YAML reads as line breaks."""
    assert list(yaml.safe_load_all(desired.as_yaml([{"text": text}]))) == [{"text": text}]


def test_embedded_programs_are_block_scalars() -> None:
    """So that the output can be read and compared."""
    assert "text: |" in desired.as_yaml([{"text": "first\nsecond\n"}])


def test_manifests_contain_no_secret_values() -> None:
    """Pods read passwords from Secrets; neither arguments nor environment variables contain them."""
    text = yaml.safe_dump(desired.objects(server()))
    for secret in ("password", "secretAccessKey"):
        assert f"value: {secret}" not in text
    connection = Connection("h", 1, "d", "u", "hunter2")
    assert "hunter2" not in str(server_secret(server().owner, connection.sqlalchemy_uri(), "k"))


def test_the_service_selects_only_pods_of_its_server() -> None:
    """Two servers in a namespace must not share traffic."""
    first, second = server(), server(name="b")
    selector = deployment.service(first)["spec"]["selector"]
    pods = deployment.deployment(first, "x")["spec"]["template"]["metadata"]["labels"]
    others = deployment.deployment(second, "x")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= pods.items()
    assert not selector.items() <= others.items()
    for obj in desired.objects(first):
        assert obj["metadata"]["labels"][labels.SERVER] == "a"


def test_pod_labels_of_the_user_do_not_override_the_selector_labels() -> None:
    """The operator's labels take precedence over those of podTemplate."""
    spec: Object = {"podTemplate": {"metadata": {"labels": {labels.SERVER: "other", "team": "ml"}}}}
    pod = deployment.deployment(server(spec), "x")["spec"]["template"]["metadata"]["labels"]
    assert pod[labels.SERVER] == "a"
    assert pod["team"] == "ml"


def test_only_proxied_access_mounts_the_proxy_plugin() -> None:
    """With the plugin the server cannot presign URLs, so clients never access the store."""
    assert env(_server_container(EXTERNAL))["PYTHONPATH"]
    presigned = {**EXTERNAL, "artifacts": {**EXTERNAL["artifacts"], "access": "Presigned"}}
    assert any(o["kind"] == "ConfigMap" and "public_s3.py" in o["data"] for o in all_objects(presigned))
    assert not any(o["kind"] == "ConfigMap" and "proxied_s3.py" in o["data"] for o in all_objects(presigned))


def test_the_migration_mounts_only_objects_that_exist_before_it() -> None:
    """The server's ConfigMap is created after the migration: a Job that mounts it would never start."""
    job = next(o for o in desired.objects(server(EXTERNAL)) if o["kind"] == "Job")
    assert {r.name for r in pod_references.of_pod(job["spec"]["template"]["spec"])} == {"a-server", "db-ca"}
    assert all(r.kind == "Secret" for r in pod_references.of_pod(job["spec"]["template"]["spec"]))


PUBLIC = {**EXTERNAL["artifacts"]["s3"], "publicEndpoint": "https://s3.example.com"}


def test_urls_are_presigned_for_the_public_endpoint_and_the_server_uses_the_endpoint() -> None:
    container = _server_container({**EXTERNAL, "artifacts": {"access": "Presigned", "s3": PUBLIC}})
    assert env(container)["MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"] == "https://s3.example.com"
    assert env(container)["MLFLOW_S3_ENDPOINT_URL"] == "https://s3:9000"
    assert env(container)["PYTHONPATH"] in {m["mountPath"] for m in container["volumeMounts"]}
    spec = {**EXTERNAL, "artifacts": {"access": "Presigned", "s3": PUBLIC}}
    (plugin,) = [o for o in all_objects(spec) if o["kind"] == "ConfigMap" and "METADATA" in o["data"]]
    assert "public_s3.py" in plugin["data"]
    assert "proxied_s3.py" not in plugin["data"]


def test_direct_access_gives_clients_endpoint_and_keys() -> None:
    """The endpoint is in the ConfigMap, the keys are in the Secret. The server itself still uses its own endpoint."""
    spec = {**EXTERNAL, "artifacts": {"access": "Direct", "s3": PUBLIC}}
    built = {(o["kind"], o["metadata"]["name"]): o for o in all_objects(spec)}
    assert built["ConfigMap", "a-client"]["data"] == {
        "MLFLOW_TRACKING_URI": "http://a.team.svc:5000",
        "MLFLOW_S3_ENDPOINT_URL": "https://s3.example.com",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "auto",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    keys = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert text_values(built["Secret", "a-client"]) == keys
    assert env(_server_container(spec))["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "s3://models/team/a"
    assert env(_server_container(spec))["MLFLOW_S3_ENDPOINT_URL"] == "https://s3:9000"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({}, 200), ({"replicas": 2}, 200), ({"replicas": 2, "workers": 4}, 400), ({"suspend": True}, 200)],
    ids=["default", "second replica", "production", "suspended"],
)
def test_embedded_database_allows_all_connections_of_its_server(spec: Object, expected: int) -> None:
    """The limit has steps, because a change restarts the database. It does not depend on `suspend`."""
    stateful_set = next(
        o for o in all_objects(spec) if o["metadata"]["name"] == "a-postgres" and o["kind"] == "StatefulSet"
    )
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["postgres", "-c", f"max_connections={expected}"]


CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


def test_a_proxy_of_the_user_is_not_used_in_the_cluster() -> None:
    """The embedded store and the server itself, which garbage collection calls, have names in the cluster."""
    proxy = {"name": "https_proxy", "value": "http://proxy:3128"}
    assert ".svc" in env(_server_container({"env": [proxy]}))["NO_PROXY"].split(",")
    own = [proxy, {"name": "no_proxy", "value": "own"}]
    assert env(_server_container({"env": own}))["no_proxy"] == "own"
    assert "NO_PROXY" not in env(_server_container({"env": own}))
    assert "NO_PROXY" not in env(_server_container({}))


BACKUP: Object = {"s3": {"bucket": "backups"}}


@pytest.mark.parametrize(
    ("s3", "user_env", "expected"),
    [
        (EXTERNAL["artifacts"]["s3"], [], "when_required"),
        ({"bucket": "own"}, [], None),
        (EXTERNAL["artifacts"]["s3"], [{"name": name, "value": "own"} for name in CHECKSUMS], "own"),
    ],
    ids=["other store", "AWS", "setting of the user"],
)
def test_stores_other_than_aws_get_no_optional_checksums(
    s3: Object, user_env: list[Object], expected: str | None
) -> None:
    """Many of them do not support checksums in trailers. The setting of a user takes precedence."""
    container = _server_container({**EXTERNAL, "artifacts": {"s3": s3}, "env": user_env})
    assert [env(container).get(name) for name in CHECKSUMS] == [expected, expected]
    assert len({variable["name"] for variable in container["env"]}) == len(container["env"])


@pytest.mark.parametrize(
    ("backup", "expected"),
    [({}, "artifacts"), (BACKUP, ""), ({"s3": {**BACKUP["s3"], "encryption": {"type": "SSES3"}}}, "backups")],
    ids=["same bucket", "own bucket", "own bucket with encryption"],
)
def test_uploads_request_the_encryption_of_the_spec(backup: Object, expected: str) -> None:
    """A policy of the bucket may reject uploads without the headers. Each bucket has its own key."""
    kms = '{"SSEKMSKeyId": "tracking", "ServerSideEncryption": "aws:kms"}'
    values = {"": "", "artifacts": kms, "backups": '{"ServerSideEncryption": "AES256"}'}
    s3 = {**EXTERNAL["artifacts"]["s3"], "encryption": {"type": "SSEKMS", "kmsKeyID": "tracking"}}
    spec = {**EXTERNAL, "artifacts": {"access": "Direct", "s3": s3}, "backup": backup}
    built = {(o["kind"], o["metadata"]["name"]): o for o in all_objects(spec)}
    name = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"
    assert env(_server_container(spec))[name] == kms
    assert built["ConfigMap", "a-client"]["data"][name] == kms
    pod = built["CronJob", "a-backup"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container = next(c for c in pod["containers"] if c["name"] == "backup")
    assert env(container)[name] == values[expected]


@pytest.mark.parametrize("spec", [{}, EXTERNAL, {"artifacts": {"access": "Direct", "s3": {"bucket": "own"}}}])
def test_other_access_modes_give_clients_no_keys(spec: Object) -> None:
    """Clients with access Proxied need none. If the server uses a workload identity, clients need their own."""
    assert all(o["metadata"]["name"] != "a-client" for o in all_objects(spec) if o["kind"] == "Secret")


def test_client_keys_are_emptied_when_access_changes() -> None:
    """A Secret that is left over contains no keys."""
    assert {*text_values(client_config.secret(server(EXTERNAL), "access", "secret")).values()} == {""}


def _store_pod(spec: Object) -> Object:
    """The pod spec of the embedded artifact store."""
    stores = (o for o in desired.objects(server(spec)) if o["kind"] == "StatefulSet")
    pod: Object = next(o for o in stores if o["metadata"]["name"] == "a-artifacts")["spec"]["template"][
        "spec"
    ]
    return pod


def test_seaweedfs_reads_its_key_from_a_secret_and_exposes_only_s3() -> None:
    """The key is neither in an argument nor in an environment variable, which SeaweedFS would log."""
    pod = _store_pod(SEAWEEDFS)
    container = pod["containers"][0]
    assert {r.name for r in pod_references.of_pod(pod)} == {"a-server"}
    secret = next(
        o for o in desired.secrets(server(SEAWEEDFS), GENERATED) if o["metadata"]["name"] == "a-server"
    )
    (owner,) = json.loads(text_values(secret)["seaweedfs.json"])["identities"]
    assert owner["credentials"] == [{"accessKey": "access", "secretKey": "secret"}]
    mounted = {m["mountPath"] for m in container["volumeMounts"] if m.get("readOnly")}
    assert f"-s3.config={mounted.pop()}/seaweedfs.json" in container["args"]
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-s3.port=9000"} <= {*container["args"]}


def test_grpc_port_of_seaweedfs_requires_a_certificate_of_the_root_key() -> None:
    """It listens on the addresses of the S3 port, and every client could create an access key through it."""
    pod = _store_pod(SEAWEEDFS)
    container = pod["containers"][0]
    secrets = {o["metadata"]["name"]: o for o in desired.secrets(server(SEAWEEDFS), GENERATED)}
    files = text_values(secrets["a-server"])
    variables = env(container)
    assert variables["WEED_GRPC_S3_CERT"] == variables["WEED_GRPC_CA"]
    volume = next(v for v in pod["volumes"] if v["name"] == "config")
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "config")
    mounted = {f"{mount}/{item['path']}": files[item["key"]] for item in volume["secret"]["items"]}
    certificate = x509.load_pem_x509_certificate(mounted[variables["WEED_GRPC_S3_CERT"]].encode())
    key = serialization.load_pem_private_key(mounted[variables["WEED_GRPC_S3_KEY"]].encode(), None)
    assert key.public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    # Other certificates would be written by each reconcile.
    assert seaweedfs.config("access", "secret") == seaweedfs.config("access", "secret")
    other = seaweedfs.config("access", "other")
    assert all(other[name] != text for name, text in files.items() if name.startswith("seaweedfs-grpc"))


@pytest.mark.parametrize(("size", "mib"), [("1Gi", 64), ("20Gi", 640), ("1Ti", 1024)])
def test_a_volume_has_room_for_many_seaweedfs_volume_files(size: str, mib: int) -> None:
    """SeaweedFS allocates seven files per bucket; with room for only three it could not store anything."""
    embedded = {**SEAWEEDFS["artifacts"]["embedded"], "storage": {"size": size}}
    args = _store_pod({"artifacts": {"embedded": embedded}})["containers"][0]["args"]
    assert f"-master.volumeSizeLimitMB={mib}" in args


def test_seaweedfs_has_a_go_memory_limit() -> None:
    """Without GOMEMLIMIT it used half of a 2 GiB limit after two files of 200 MiB. Without a limit it needs none."""
    assert env(_store_pod(SEAWEEDFS)["containers"][0])["GOMEMLIMIT"] == str(3 * 2**29)
    free: Object = {"artifacts": {"embedded": {"engine": "SeaweedFS", "resources": {"requests": {"cpu": 1}}}}}
    assert "GOMEMLIMIT" not in env(_store_pod(free)["containers"][0])


def test_minio_gets_no_users_configuration() -> None:
    """A changed Secret would restart the pods of every server once."""
    assert all("seaweedfs.json" not in text_values(secret) for secret in desired.secrets(server(), GENERATED))


def test_aws_gets_no_endpoint_and_no_keys() -> None:
    """They would take precedence over workload identity on AWS."""
    aws: Object = {"artifacts": {"s3": {"bucket": "models", "region": "eu-central-1"}}}
    container = _server_container(aws)
    names = {e["name"] for e in container["env"]}
    assert not names & {
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_CA_BUNDLE",
    }
    assert env(container)["AWS_DEFAULT_REGION"] == "eu-central-1"


def test_ca_certificates_are_mounted_where_the_environment_points() -> None:
    """Otherwise the server could not verify the certificate of a private CA."""
    container = _server_container(EXTERNAL)
    mounted = {m["mountPath"] for m in container["volumeMounts"]}
    assert env(container)["AWS_CA_BUNDLE"].removesuffix("/ca.crt") in mounted


def test_the_fingerprint_covers_all_references_of_the_pod() -> None:
    """A change of a Secret without a fingerprint would not restart the pods."""
    spec: Object = {
        **EXTERNAL,
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "two", "key": "k", "optional": True}}},
        ],
        "envFrom": [{"secretRef": {"name": "three"}}, {"configMapRef": {"name": "four"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "p", "mountPath": "/p"}],
        "podTemplate": {
            "spec": {
                "volumes": [
                    {"name": "v", "secret": {"secretName": "five"}},
                    {"name": "p", "projected": {"sources": [{"secret": {"name": "six"}}]}},
                ]
            }
        },
    }
    pod = deployment.deployment(server(spec), "x")["spec"]["template"]["spec"]
    references = {r.name for r in pod_references.of_pod(pod)}
    assert references >= {"one", "two", "three", "four", "five", "six", "keys", "db-ca", "s3-ca", "a-server"}


def test_topology_spread_constraints_select_the_servers_pods() -> None:
    """A constraint without a selector has no effect, and all replicas may run on one node."""
    asked = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    for spec in ({}, {"podTemplate": {"spec": {"topologySpreadConstraints": [asked]}}}):
        found = deployment.deployment(server(spec), "x")["spec"]
        (constraint,) = found["template"]["spec"]["topologySpreadConstraints"]
        assert constraint["labelSelector"] == found["selector"]


def test_a_single_replica_has_no_disruption_budget() -> None:
    """It would only block node drains."""
    assert deployment.disruption_budget(server()) is None
    assert deployment.disruption_budget(server({"replicas": 2}))


def test_disruption_budget_allows_the_eviction_of_crashing_pods() -> None:
    """The default policy counts pods that are not ready as lost: no pod could be evicted, and no node drained."""
    budget = deployment.disruption_budget(server({"replicas": 2}))
    assert budget
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_manifests_of_the_examples_match_the_recorded_ones(example: Path) -> None:
    """Changes for users become visible in a review. `python -m tests.unit.snapshots` updates the recorded manifests."""
    for obj in objects(example):
        for version in VERSIONS:
            validate_object(obj, version)
    assert manifest(example) == (RECORDED_MANIFESTS / example.name).read_text()


def _server_container(spec: Object) -> Object:
    container: Object = deployment.deployment(server(spec), "x")["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize(
    ("spec", "fast_path"),
    [
        ({}, True),
        ({"image": "ghcr.io/mlflow/mlflow:v3.17.2-full", "version": "3.17.2"}, True),
        ({"image": "registry.example/mlflow:v3.17.2-full", "version": "3.17.2"}, False),
        ({"version": "3.16.1"}, False),
        ({**EXTERNAL, "artifacts": {**EXTERNAL["artifacts"], "access": "Presigned"}}, False),
    ],
    ids=["default", "default image set", "custom image", "other version", "plugins not mounted"],
)
def test_only_verified_images_use_the_fast_path(spec: Object, fast_path: bool) -> None:
    """A custom image may contain anything, whatever version the spec sets: it runs MLflow's own command."""
    container = deployment.deployment(server(spec), "")["spec"]["template"]["spec"]["containers"][0]
    assert ("--app-name" in container["command"]) is fast_path


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_names_of_all_objects_are_known(example: Path) -> None:
    """The operator reads objects by these names only: it would not find another one again."""
    unknown = [
        (obj["kind"], obj["metadata"]["name"])
        for obj in objects(example)
        if (names := fixed_names(Names(obj["metadata"]["labels"][labels.SERVER]), kinds.of(obj))) is not None
        and obj["metadata"]["name"] not in names
    ]
    assert unknown == []
