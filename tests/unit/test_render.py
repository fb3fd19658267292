"""The objects of a server: valid for every supported Kubernetes, restricted, and wired to each other."""

import json
from pathlib import Path

import pytest
import yaml

from mlflow_operator import render as desired
from mlflow_operator.kube import labels, pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import client_config, deployment
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.secrets import decoded, server_secret
from tests.unit.kubernetes_schemas import valid
from tests.unit.servers import env, pod_specs, server
from tests.unit.snapshots import EXAMPLES, RECORDS, objects, text

VERSIONS = ["1.30", "1.34"]
GENERATED = desired.Generated("user", "password", "access", "secret", "rollout")

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


def everything(spec: Object | None = None) -> list[Object]:
    """All objects for a spec, Secrets included."""
    found = server(spec)
    return [*desired.secrets(found, GENERATED), *desired.objects(found)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "spec",
    [{}, EXTERNAL, {"suspend": True}, SEAWEEDFS],
    ids=["empty", "external", "suspended", "seaweedfs"],
)
def test_kubernetes_accepts_every_object(spec: Object, version: str) -> None:
    """By Kubernetes' own schemas, strictly: a misspelt field would be dropped in silence."""
    for obj in everything(spec):
        valid(obj, version)


@pytest.mark.parametrize("spec", [{}, EXTERNAL, SEAWEEDFS], ids=["empty", "external", "seaweedfs"])
def test_every_pod_meets_the_restricted_standard(spec: Object) -> None:
    """Pod Security `restricted`, and more: read-only root, no token, no Service environment."""
    specs = list(pod_specs(everything(spec)))
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


def test_pull_secrets_user_and_placement_reach_every_pod() -> None:
    """A mirrored, tainted or user-restricted cluster is a matter of one place."""
    asked: Object = {
        "imagePullSecrets": [{"name": "mirror"}],
        "nodeSelector": {"pool": "ml"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "securityContext": {"runAsUser": 1000650000, "fsGroup": 1000650000},
    }
    specs = list(pod_specs(everything({"podTemplate": {"spec": asked}})))
    assert len(specs) == 4
    for pod in specs:
        assert pod["imagePullSecrets"] == asked["imagePullSecrets"]
        assert pod["nodeSelector"] == asked["nodeSelector"]
        assert pod["tolerations"] == asked["tolerations"]
        assert pod["securityContext"]["runAsUser"] == 1000650000
        assert pod["securityContext"]["runAsNonRoot"] is True


def test_no_secret_stands_in_a_manifest() -> None:
    """Passwords are read from Secrets by the pods themselves; arguments and environment hold none."""
    text = yaml.safe_dump(desired.objects(server()))
    for secret in ("password", "secretAccessKey"):
        assert f"value: {secret}" not in text
    connection = Connection("h", 1, "d", "u", "hunter2")
    assert "hunter2" not in str(server_secret(server().owner, connection.sqlalchemy(), "k"))


def test_a_servers_service_reaches_its_pods_and_no_others() -> None:
    """Two servers in a namespace must not share traffic."""
    first, second = server(), server(name="b")
    selector = deployment.service(first)["spec"]["selector"]
    pods = deployment.deployment(first, "x")["spec"]["template"]["metadata"]["labels"]
    others = deployment.deployment(second, "x")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= pods.items()
    assert not selector.items() <= others.items()
    for obj in desired.objects(first):
        assert obj["metadata"]["labels"][labels.SERVER] == "a"


def test_labels_of_the_owner_never_take_a_pod_out_of_its_service() -> None:
    """podTemplate's labels come first and ours win."""
    spec: Object = {"podTemplate": {"metadata": {"labels": {labels.SERVER: "other", "team": "ml"}}}}
    pod = deployment.deployment(server(spec), "x")["spec"]["template"]["metadata"]["labels"]
    assert pod[labels.SERVER] == "a"
    assert pod["team"] == "ml"


def test_proxied_mounts_the_plugin_and_presigned_does_not() -> None:
    """With it the server can't sign URLs, so clients never need to reach the store."""
    assert env(_server(EXTERNAL))["PYTHONPATH"]
    presigned = {**EXTERNAL, "artifacts": {**EXTERNAL["artifacts"], "access": "Presigned"}}
    assert "PYTHONPATH" not in env(_server(presigned))
    assert not any(o["kind"] == "ConfigMap" and "proxied_s3.py" in o["data"] for o in everything(presigned))


def test_the_migration_mounts_only_what_exists_before_it() -> None:
    """The server's own files come after the schema: a Job that waits for them waits for ever."""
    job = next(o for o in desired.objects(server(EXTERNAL)) if o["kind"] == "Job")
    assert {r.name for r in pod_references.of_pod(job["spec"]["template"]["spec"])} == {"a-server", "db-ca"}
    assert all(r.kind == "Secret" for r in pod_references.of_pod(job["spec"]["template"]["spec"]))


PUBLIC = {**EXTERNAL["artifacts"]["s3"], "publicEndpoint": "https://s3.example.com"}


def test_a_public_address_is_signed_for_and_the_store_is_asked_at_its_own() -> None:
    """The plugin that signs is there for that alone; without it MLflow's own repository does."""
    found = _server({**EXTERNAL, "artifacts": {"access": "Presigned", "s3": PUBLIC}})
    assert env(found)["MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"] == "https://s3.example.com"
    assert env(found)["MLFLOW_S3_ENDPOINT_URL"] == "https://s3:9000"
    assert env(found)["PYTHONPATH"] in {m["mountPath"] for m in found["volumeMounts"]}
    spec = {**EXTERNAL, "artifacts": {"access": "Presigned", "s3": PUBLIC}}
    (plugin,) = [o for o in everything(spec) if o["kind"] == "ConfigMap" and "METADATA" in o["data"]]
    assert "public_s3.py" in plugin["data"]
    assert "proxied_s3.py" not in plugin["data"]


def test_direct_clients_are_given_address_and_keys() -> None:
    """What is no secret in the ConfigMap, the keys in the Secret beside it; the server logs to the bucket itself."""
    spec = {**EXTERNAL, "artifacts": {"access": "Direct", "s3": PUBLIC}}
    made = {(o["kind"], o["metadata"]["name"]): o for o in everything(spec)}
    assert made["ConfigMap", "a-client"]["data"] == {
        "MLFLOW_TRACKING_URI": "http://a.team.svc:5000",
        "MLFLOW_S3_ENDPOINT_URL": "https://s3.example.com",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "auto",
    }
    keys = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert decoded(made["Secret", "a-client"]) == keys
    assert env(_server(spec))["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "s3://models/team/a"
    assert env(_server(spec))["MLFLOW_S3_ENDPOINT_URL"] == "https://s3:9000"
    assert "PYTHONPATH" not in env(_server(spec))


@pytest.mark.parametrize("spec", [{}, EXTERNAL, {"artifacts": {"access": "Direct", "s3": {"bucket": "own"}}}])
def test_nobody_else_is_given_keys(spec: Object) -> None:
    """Proxied clients need none, and where the server has an identity instead, clients need theirs."""
    assert all(o["metadata"]["name"] != "a-client" for o in everything(spec) if o["kind"] == "Secret")


def test_keys_that_are_given_no_more_are_blank() -> None:
    """A Secret that is left over tells nothing."""
    assert {*decoded(client_config.secret(server(EXTERNAL), "access", "secret")).values()} == {""}


def _store(spec: Object) -> Object:
    """The pod of the embedded artifact store."""
    stores = (o for o in desired.objects(server(spec)) if o["kind"] == "StatefulSet")
    pod: Object = next(o for o in stores if o["metadata"]["name"] == "a-artifacts")["spec"]["template"][
        "spec"
    ]
    return pod


def test_seaweedfs_has_its_key_from_a_secret_and_opens_nothing_but_s3() -> None:
    """Neither in an argument nor in the environment, from where it would get into its log."""
    pod = _store(SEAWEEDFS)
    container = pod["containers"][0]
    assert {r.name for r in pod_references.of_pod(pod)} == {"a-server"}
    secret = next(
        o for o in desired.secrets(server(SEAWEEDFS), GENERATED) if o["metadata"]["name"] == "a-server"
    )
    (owner,) = json.loads(decoded(secret)["seaweedfs.json"])["identities"]
    assert owner["credentials"] == [{"accessKey": "access", "secretKey": "secret"}]
    mounted = {m["mountPath"] for m in container["volumeMounts"] if m.get("readOnly")}
    assert f"-s3.config={mounted.pop()}/seaweedfs.json" in container["args"]
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-s3.port=9000"} <= {*container["args"]}


@pytest.mark.parametrize(("size", "mib"), [("1Gi", 64), ("20Gi", 640), ("1Ti", 1024)])
def test_a_volume_holds_many_files_of_seaweedfs(size: str, mib: int) -> None:
    """It takes seven at once for a bucket; on a volume with room for three it would store nothing."""
    embedded = {**SEAWEEDFS["artifacts"]["embedded"], "storage": {"size": size}}
    args = _store({"artifacts": {"embedded": embedded}})["containers"][0]["args"]
    assert f"-master.volumeSizeLimitMB={mib}" in args


def test_seaweedfs_collects_its_garbage_in_time() -> None:
    """It reached half a limit of 2 GiB after two files of 200 MiB; without a limit it may."""
    assert env(_store(SEAWEEDFS)["containers"][0])["GOMEMLIMIT"] == str(3 * 2**29)
    free: Object = {"artifacts": {"embedded": {"engine": "SeaweedFS", "resources": {"requests": {"cpu": 1}}}}}
    assert "GOMEMLIMIT" not in env(_store(free)["containers"][0])


def test_minio_gets_no_list_of_users() -> None:
    """A Secret that changed would roll every server's pods once."""
    assert all("seaweedfs.json" not in decoded(secret) for secret in desired.secrets(server(), GENERATED))


def test_aws_is_given_no_endpoint() -> None:
    """With workload identity on AWS an endpoint or a key set by mistake breaks everything."""
    aws: Object = {"artifacts": {"s3": {"bucket": "models", "region": "eu-central-1"}}}
    found = _server(aws)
    names = {e["name"] for e in found["env"]}
    assert not names & {
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_CA_BUNDLE",
    }
    assert env(found)["AWS_DEFAULT_REGION"] == "eu-central-1"


def test_the_pods_read_what_private_authorities_signed() -> None:
    """Both certificates are mounted where the environment says."""
    found = _server(EXTERNAL)
    mounted = {m["mountPath"] for m in found["volumeMounts"]}
    assert env(found)["AWS_CA_BUNDLE"].removesuffix("/ca.crt") in mounted


def test_everything_the_pods_read_is_fingerprinted() -> None:
    """A Secret that is read but not watched would never roll the pods."""
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
    found = {r.name for r in pod_references.of_pod(pod)}
    assert found >= {"one", "two", "three", "four", "five", "six", "keys", "db-ca", "s3-ca", "a-server"}


def test_every_spread_counts_the_servers_own_pods() -> None:
    """Without a selector a constraint counts nothing, and all replicas may land on one node."""
    asked = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    for spec in ({}, {"podTemplate": {"spec": {"topologySpreadConstraints": [asked]}}}):
        found = deployment.deployment(server(spec), "x")["spec"]
        (constraint,) = found["template"]["spec"]["topologySpreadConstraints"]
        assert constraint["labelSelector"] == found["selector"]


def test_one_replica_may_always_be_drained() -> None:
    """A budget for a single pod would only block drains."""
    assert deployment.disruption_budget(server()) is None
    assert deployment.disruption_budget(server({"replicas": 2}))


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_objects_of_the_examples_are_as_recorded(example: Path) -> None:
    """Any change to what users get shows in review. Record anew with `python -m tests.unit.snapshots`."""
    for obj in objects(example):
        for version in VERSIONS:
            valid(obj, version)
    assert text(example) == (RECORDS / example.name).read_text()


def _server(spec: Object) -> Object:
    found: Object = deployment.deployment(server(spec), "x")["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("spec", "direct"),
    [
        ({}, True),
        ({"image": "ghcr.io/mlflow/mlflow:v3.17.2-full", "version": "3.17.2"}, True),
        ({"image": "registry.example/mlflow:v3.17.2-full", "version": "3.17.2"}, False),
        ({"version": "3.16.1"}, False),
        ({**EXTERNAL, "artifacts": {**EXTERNAL["artifacts"], "access": "Presigned"}}, False),
    ],
    ids=["tested", "named", "image of one's own", "another version", "plugins not mounted"],
)
def test_only_a_server_that_is_known_inside_out_is_taken_straight_to_its_handlers(
    spec: Object, direct: bool
) -> None:
    """An image of one's own may hold anything, whatever version it claims: it runs as MLflow made it."""
    container = deployment.deployment(server(spec), "")["spec"]["template"]["spec"]["containers"][0]
    assert ("--app-name" in container["command"]) is direct
