"""`mlflow-operator render` with platforms: a server gets the stores that it would get in a cluster."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.cli import main
from mlflow_operator.kube.objects import Object
from tests.unit.api.platform_refusals import platform, without
from tests.unit.platform_simulation import SELECTED

PLATFORM_HOST = "postgres.mlflow-platform.svc"


def server(spec: Object | None = None, **status: Any) -> Object:
    """Manifest of a server."""
    metadata = {"name": "tracking", "namespace": "team-a"}
    manifest = {"apiVersion": API_VERSION, "kind": "MLflowServer", "metadata": metadata, "spec": spec or {}}
    return {**manifest, "status": status} if status else manifest


def shared(spec: Object | None = None, name: str = "shared", *, is_default: bool = True) -> Object:
    """Manifest of a platform."""
    metadata = {"name": name, "annotations": {DEFAULT_ANNOTATION: "true"} if is_default else {}}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec or platform()}


def namespace(labels: Object) -> Object:
    """Manifest of the server's namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": labels}}


TEAM_A = namespace(SELECTED)
NAMED: Object = {"platformRef": {"name": "shared"}}
OWN_STORES: Object = {"database": {"embedded": {}}, "artifacts": {"embedded": {}}}


def render(*documents: Object, options: tuple[str, ...] = ()) -> Result:
    """Run the command with the documents as the input."""
    result = CliRunner().invoke(main, ["render", "-f", "-", *options], input=yaml.safe_dump_all(documents))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def objects(result: Result) -> dict[tuple[str, str], Object]:
    """The printed objects by kind and name."""
    assert result.exit_code == 0, result.output
    printed = [obj for obj in yaml.safe_load_all(result.stdout) if obj]
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in printed}


def has_embedded_database(result: Result) -> bool:
    """Whether the output contains a PostgreSQL."""
    return ("StatefulSet", "tracking-postgres") in objects(result)


def test_server_uses_the_default_platform_in_the_same_file() -> None:
    """It has no embedded stores, and its artifacts are below its own prefix."""
    result = render(shared(), TEAM_A, server())
    assert not [kind for kind, _ in objects(result) if kind in {"StatefulSet", "PersistentVolumeClaim"}]
    assert "s3://mlflow/team-a/tracking" in result.stdout
    assert "was not evaluated" not in result.stderr


def test_platforms_are_read_from_other_files(tmp_path: Path) -> None:
    """Also from the output of kubectl, which is a list of platforms and namespaces."""
    (tmp_path / "platform.yaml").write_text(yaml.safe_dump(shared()))
    listed = {"apiVersion": "v1", "kind": "List", "items": [shared(name="other", is_default=False), TEAM_A]}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(listed))
    files = ("--platform", str(tmp_path / "platform.yaml"), "--platform", str(tmp_path / "list.yaml"))
    result = render(server(), options=files)
    assert not has_embedded_database(result)
    assert "assumed" not in result.stderr


def test_secrets_contain_the_login_and_placeholders_for_the_platforms_certificates() -> None:
    """The administrator's Secrets are not printed."""
    printed = objects(render(shared(), TEAM_A, server(), options=("--with-secrets",)))
    names = {name for kind, name in printed if kind == "Secret"}
    assert names == {
        *("tracking-database", "tracking-artifacts", "tracking-server", "tracking-encryption"),
    }
    host = printed["Secret", "tracking-database"]["data"]["host"]
    assert base64.b64decode(host).decode() == PLATFORM_HOST
    values = map(base64.b64decode, printed["Secret", "tracking-server"]["data"].values())
    assert b"CA-CERTIFICATES" in values


@pytest.mark.parametrize(
    ("spec", "platforms", "is_embedded"),
    [
        (NAMED, [shared(is_default=False)], False),
        ({"database": {"platform": {}}, "artifacts": {"embedded": {}}}, [shared()], False),
        ({"database": {"embedded": {}}}, [shared()], True),
        ({}, [shared(without("database"))], True),
        ({}, [shared(is_default=False)], True),
        ({}, [shared(platform(namespaceSelector={"matchLabels": {"a": "b"}}))], True),
    ],
    ids=["named", "only the database", "embedded", "no database on offer", "no default", "not selected"],
)
def test_choice_is_that_of_the_operator(spec: Object, platforms: list[Object], is_embedded: bool) -> None:
    assert has_embedded_database(render(*platforms, TEAM_A, server(spec))) is is_embedded


def test_existing_server_keeps_its_recorded_platform() -> None:
    """And one that was created before the platform keeps its embedded stores."""
    recorded = {"name": "shared", "uid": "u", "parts": ["Database", "Artifacts"]}
    other_default = shared(name="other")
    with_platform = server(platform=recorded)
    assert not has_embedded_database(render(shared(is_default=False), other_default, TEAM_A, with_platform))
    embedded = server(database={"type": "Embedded", "host": "a", "port": 5432, "name": "mlflow"})
    assert has_embedded_database(render(shared(), TEAM_A, embedded))


@pytest.mark.parametrize(
    ("selector", "is_assumed"),
    [
        ({}, False),
        ({"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}, False),
        ({"matchLabels": SELECTED}, True),
    ],
    ids=["all", "name", "label"],
)
def test_missing_labels_of_the_namespace_are_noted(selector: Object, is_assumed: bool) -> None:
    """Without a manifest of the namespace, only its name is known."""
    result = render(shared(platform(namespaceSelector=selector)), server())
    assert not has_embedded_database(result)
    note = "team-a/tracking: The spec.namespaceSelector of MLflowPlatform"
    assert (note in result.stderr) is is_assumed
    assert ("add the Namespace with its labels" in result.stderr) is is_assumed


def test_default_that_does_not_select_the_name_of_the_namespace_is_not_used() -> None:
    """Its selector needs no labels of the namespace. A note says that no platform is used, which may be a mistake."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "team-b"}}
    result = render(shared(platform(namespaceSelector=selector)), server())
    assert has_embedded_database(result)
    assert "team-a/tracking: The server uses no platform" in result.stderr


DEFAULTS: Object = {
    "version": "3.16.0",
    "podMetadata": {"labels": {"example.com/cost-center": "42"}},
    "garbageCollection": {"olderThan": "24h"},
}


def takes_defaults(result: Result) -> bool:
    """Whether the output contains all of DEFAULTS, or none of them."""
    printed = objects(result)
    pod = printed["Deployment", "tracking"]["spec"]["template"]
    found = {
        "v3.16.0" in pod["spec"]["containers"][0]["image"],
        pod["metadata"]["labels"].get("example.com/cost-center") == "42",
        ("CronJob", "tracking-gc") in printed,
    }
    assert len(found) == 1
    return True in found


@pytest.mark.parametrize(
    ("spec", "is_default", "are_taken"),
    [({}, True, True), (NAMED, False, True), (OWN_STORES, True, True), (OWN_STORES, False, False)],
    ids=["default platform", "named platform", "own stores", "own stores without a default platform"],
)
def test_new_server_takes_defaults_of_the_platform(spec: Object, is_default: bool, are_taken: bool) -> None:
    offered = shared(platform(serverDefaults=DEFAULTS), is_default=is_default)
    assert takes_defaults(render(offered, TEAM_A, server(spec))) is are_taken
    result = render(offered, server(spec))
    assert takes_defaults(result) is are_taken
    assert ("is assumed to select namespace team-a" in result.stderr) is are_taken


def test_existing_server_keeps_the_defaults_that_it_took() -> None:
    """Those of the platform can have changed."""
    recorded = {"name": "shared", "uid": "u", "parts": ["Database", "Artifacts"]}
    offered = shared(platform(serverDefaults=DEFAULTS))
    assert not takes_defaults(render(offered, TEAM_A, server(platform=recorded)))
    existing = server(platform=recorded, platformDefaults={"platform": "shared", **DEFAULTS})
    assert takes_defaults(render(shared(), TEAM_A, existing))


def test_policy_of_a_platform_that_may_select_the_namespace_is_noted() -> None:
    """It is not an error, because platforms for other namespaces can be in the input."""
    other = shared(platform(policy={"stores": "PlatformOnly"}), "other", is_default=False)
    result = render(other, server(OWN_STORES))
    assert has_embedded_database(result)
    assert "If the platform selects namespace team-a: The server violates the policy" in result.stderr


def test_default_image_that_the_policy_does_not_allow_is_noted() -> None:
    """It is not an error, because the operator may use images of a mirror."""
    result = render(shared(platform(policy={"images": ["registry.example.com/ml"]})), TEAM_A, server())
    assert ("Deployment", "tracking") in objects(result)
    assert "If the chart of the operator configures no other images: The server violates" in result.stderr
    assert "spec.image is not set, and the default image ghcr.io/mlflow/mlflow" in result.stderr


def test_number_of_servers_is_not_checked() -> None:
    """The input does not contain all servers of the namespace, and not their creation times."""
    objects(render(shared(platform(policy={"serversPerNamespace": 1})), TEAM_A, server()))


ERRORS: dict[str, tuple[list[Object], str]] = {
    "named platform that is not in the input": (
        [server(NAMED)],
        'tracking: The server uses MLflowPlatform "shared", which the input does not contain. Pass its manifest with',
    ),
    "recorded platform that is not in the input": (
        [server(platform={"name": "shared", "uid": "u", "parts": ["Database"]})],
        "Pass its manifest with --platform FILE.",
    ),
    "no default platform": (
        [server({"artifacts": {"platform": {}}})],
        "spec.artifacts.platform requests the default platform, and the input contains none",
    ),
    "two default platforms": (
        [shared(), shared(name="other"), TEAM_A, server()],
        'The default platforms "other" and "shared" select namespace team-a',
    ),
    "two possible default platforms": (
        [shared(), shared(name="other"), server()],
        "may select namespace team-a, and at most one can be the default there. Add the Namespace",
    ),
    "platform that does not select the namespace": (
        [shared(is_default=False), namespace({}), server(NAMED)],
        'MLflowPlatform "shared" does not select namespace team-a',
    ),
    "store that is not offered": (
        [shared(without("artifacts")), TEAM_A, server({"artifacts": {"platform": {}}})],
        'MLflowPlatform "shared" offers no artifact store',
    ),
    "violation of the policy": (
        [shared(), TEAM_A, server({"service": {"type": "LoadBalancer"}})],
        'The server violates the policy of MLflowPlatform "shared": spec.service.type is LoadBalancer, but only',
    ),
    "violation of the policy of a platform that is assumed to be used": (
        [shared(), server({"service": {"type": "LoadBalancer"}})],
        "spec.service.type is LoadBalancer, but only ClusterIP is allowed",
    ),
    "own stores where a platform requires its own": (
        [shared(platform(policy={"stores": "PlatformOnly"}), is_default=False), TEAM_A, server(OWN_STORES)],
        "spec.database uses embedded, but only stores of a platform are allowed",
    ),
    "more connections than the platform allows": (
        [shared(), TEAM_A, server({"replicas": 100, "workers": 64})],
        'MLflowPlatform "shared" limits each server to 130 database connections',
    ),
    "invalid platform": (
        [shared(platform(database__postgres__host="postgres")), server()],
        "MLflowPlatform shared: spec.database.postgres.host: host must be an IP address or a name with a dot",
    ),
    "platform with an unknown field": (
        [shared(platform(databse={})), server()],
        "MLflowPlatform shared: unknown field spec.databse. Correct the name or remove it.",
    ),
    "platform without a spec": (
        [{"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "shared"}}, server()],
        "MLflowPlatform shared: spec: ",
    ),
    "platform without metadata": (
        [{"apiVersion": API_VERSION, "kind": KIND, "spec": platform()}, server()],
        "MLflowPlatform without a name: metadata: ",
    ),
    "two manifests of a platform": (
        [shared(), shared(is_default=False), server()],
        "MLflowPlatform shared has two different manifests",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_message_says_why_the_server_cannot_be_rendered(case: str) -> None:
    documents, expected = ERRORS[case]
    result = render(*documents)
    assert (result.exit_code, result.stdout) == (1, "")
    assert expected in result.stderr


def test_file_without_platforms_is_an_error(tmp_path: Path) -> None:
    """It is probably the wrong file."""
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(server()))
    result = render(server(), options=("--platform", str(tmp_path / "wrong.yaml")))
    assert result.exit_code == 1
    assert "wrong.yaml contains no MLflowPlatform" in result.stderr
