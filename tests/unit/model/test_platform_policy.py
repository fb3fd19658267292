"""Which servers violate the policy of a platform, and what the message says."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlflow_operator import api, render
from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.crd import openapi_schema
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import Part, Platform, resolve_platform
from mlflow_operator.model.platform_policy import default_images_of, images_of, is_below, violations
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.schema_nodes import walk_schema
from tests.unit.api.platform_refusals import platform, without
from tests.unit.api.specs import specs
from tests.unit.servers import pod_specs, resource

PREFIX = "registry.example.com/ml"
MIRRORED_IMAGES = Images(
    mlflow=f"{PREFIX}/mlflow", postgres=f"{PREFIX}/pg", minio=f"{PREFIX}/m", seaweedfs=f"{PREFIX}/s"
)
"""Default images that the policies of most tests allow."""
BOTH, NONE = frozenset(Part), frozenset[Part]()
POD_SPEC = "spec.podTemplate.spec"


def resolved(spec: Object, name: str = "shared", **annotations: str) -> Platform:
    """The platform with this spec."""
    metadata = {"name": name, "annotations": annotations}
    return resolve_platform(mlflowplatform.parse({"metadata": metadata, "spec": spec}))


def with_policy(name: str = "shared", **policy: Any) -> Platform:
    """A platform with this policy, and otherwise with default values."""
    return resolved(platform(policy=policy), name)


def message(spec: Object, *platforms: Platform, parts: frozenset[Part] = BOTH) -> str:
    """The violations of a server with this spec."""
    parsed = resource(spec)
    images = default_images_of(parsed.spec, parts, MIRRORED_IMAGES, {})
    return violations(parsed, platforms, parts, {}, images)


def pods(**spec: Any) -> Object:
    """A spec with these fields of the pod template."""
    return {"podTemplate": {"spec": spec}}


@pytest.mark.parametrize(
    ("spec", "policy", "expected"),
    [
        (
            {"image": "registry.example.com/ml-evil/mlflow:1"},
            {"images": [PREFIX]},
            f"spec.image is registry.example.com/ml-evil/mlflow:1, but only images below {PREFIX} are allowed",
        ),
        (
            {"database": {"embedded": {"image": "postgres:17"}}},
            {"images": [PREFIX]},
            "spec.database.embedded.image is postgres:17",
        ),
        (
            {"artifacts": {"embedded": {"image": "minio/minio"}}},
            {"images": [PREFIX]},
            "spec.artifacts.embedded.image is minio/minio",
        ),
        ({"backup": {"image": "postgres:17"}}, {"images": [PREFIX]}, "spec.backup.image is postgres:17"),
        (
            {
                "restoreFrom": {
                    "backup": "20260101T000000Z-00000000",
                    "serverName": "b",
                    "image": "postgres:17",
                }
            },
            {"images": [PREFIX]},
            "spec.restoreFrom.image is postgres:17",
        ),
        (
            {"service": {"type": "LoadBalancer"}},
            {},
            "spec.service.type is LoadBalancer, but only ClusterIP is allowed",
        ),
        (
            {"service": {"type": "ClusterIP"}},
            {"serviceTypes": ["NodePort", "LoadBalancer"]},
            "spec.service.type is ClusterIP, but only LoadBalancer or NodePort is allowed",
        ),
        (
            pods(serviceAccountName="ci-deployer"),
            {"serviceAccountNames": ["mlflow"]},
            f"{POD_SPEC}.serviceAccountName is ci-deployer, but only mlflow is allowed",
        ),
    ],
)
def test_violation_names_field_value_and_platform(spec: Object, policy: Object, expected: str) -> None:
    text = message(spec, with_policy(**policy))
    assert text.startswith('The server violates the policy of MLflowPlatform "shared": ')
    assert expected in text
    assert "ask the administrator of the platform to allow it in spec.policy" in text


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({}, {}),
        ({}, {"images": [PREFIX], "serviceAccountNames": ["mlflow"], "stores": "PlatformOnly"}),
        ({"image": f"{PREFIX}/mlflow:1"}, {"images": ["ghcr.io", PREFIX]}),
        ({"image": "anything"}, {"images": []}),
        (pods(serviceAccountName="mlflow"), {"serviceAccountNames": ["mlflow"]}),
        (pods(serviceAccountName="default"), {"serviceAccountNames": ["mlflow"]}),
        (pods(serviceAccountName="any"), {}),
        ({"service": {"type": "LoadBalancer"}}, {"serviceTypes": ["ClusterIP", "LoadBalancer"]}),
    ],
)
def test_allowed_server_has_no_violations(spec: Object, policy: Object) -> None:
    """What a server does not set comes from administrators."""
    assert message(spec, with_policy(**policy)) == ""


def test_every_image_field_is_checked() -> None:
    """Also one that is added later: the policy would not limit it."""
    nodes = dict(walk_schema(openapi_schema()["properties"]["spec"], "spec"))
    fields = {path for path in nodes if path.split(".")[-1].lower().endswith("image")}
    assert not {path for path in nodes if "containers" in path.lower()}
    spec = {
        "image": "a",
        "database": {"embedded": {"image": "a"}},
        "artifacts": {"embedded": {"image": "a"}},
        "backup": {"image": "a"},
        "restoreFrom": {"backup": "20260101T000000Z-00000000", "serverName": "b", "image": "a"},
    }
    assert {field for field, _ in images_of(resource(spec).spec)} == fields


@pytest.mark.parametrize(
    ("image", "prefix"),
    [
        ("registry.example.com/ml/mlflow:v3", PREFIX),
        ("registry.example.com/ml:v3", PREFIX),
        ("registry.example.com/ml@sha256:abc", PREFIX),
        ("registry.example.com/ml/a:v1@sha256:abc", PREFIX),
        ("Registry.Example.com/ml/a", PREFIX),
        ("registry.example.com/ml/a", "registry.example.com"),
        ("registry:5000/ml", "registry:5000"),
        ("localhost/ml", "localhost"),
        ("postgres:17", "docker.io/library"),
        ("postgres", "docker.io"),
        ("minio/minio:latest", "docker.io/minio"),
        ("index.docker.io/library/postgres", "docker.io/library/postgres"),
        ("docker.io/postgres", "docker.io/library"),
    ],
)
def test_image_below_a_prefix(image: str, prefix: str) -> None:
    assert is_below(image, prefix)


@pytest.mark.parametrize(
    ("image", "prefix"),
    [
        ("registry.example.com/ml-evil", PREFIX),
        ("registry.example.com/mlflow", PREFIX),
        ("registry.example.com/other/ml", PREFIX),
        ("registry.example.com/ml/../evil", PREFIX),
        ("registry.example.com/ml//evil", PREFIX),
        ("registry.example.com/ml/./evil", PREFIX),
        ("registry.example.com/ml/:tag", PREFIX),
        ("registry.example.com/ML/evil", PREFIX),
        ("registry.example.com:5000/ml/a", PREFIX),
        ("registry.example.com.evil.example/ml/a", PREFIX),
        ("evil/registry.example.com/ml/a", PREFIX),
        ("registry.example.com@sha256:abc/ml/a", PREFIX),
        ("registry/ml", "registry:5000"),
        ("postgres", "docker.io/minio"),
        ("localhost", "localhost"),
        ("docker.io", "docker.io/library/postgres"),
    ],
)
def test_image_outside_of_a_prefix(image: str, prefix: str) -> None:
    assert not is_below(image, prefix)


SEGMENTS = st.from_regex(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*", fullmatch=True)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4)


@given(PATHS, PATHS, st.sampled_from(["", ":v1", "@sha256:abc", ":v1@sha256:abc"]))
def test_prefix_ends_at_a_segment(image: list[str], prefix: list[str], suffix: str) -> None:
    """Whatever the names of images are, and however they are tagged."""
    expected = image[: len(prefix)] == prefix
    name, allowed = ("/".join(["registry.example.com", *path]) for path in (image, prefix))
    assert is_below(f"{name}{suffix}", allowed) == expected


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?", fullmatch=True))
def test_image_below_a_prefix_has_it_literally(image: str) -> None:
    """No valid image of a server is read as another one than container runtimes read it."""
    if is_below(image, PREFIX):
        registry, *path = image.partition("@")[0].split("/")
        assert registry.lower() == "registry.example.com"
        assert path[0].partition(":")[0] == "ml"
        assert ".." not in path


STRICT: Object = {"images": [PREFIX], "serviceTypes": ["ClusterIP"], "serviceAccountNames": ["mlflow"]}
IMAGES = st.sampled_from(
    [
        MIRRORED_IMAGES,
        replace(MIRRORED_IMAGES, mlflow="evil"),
        replace(MIRRORED_IMAGES, postgres="evil"),
        replace(MIRRORED_IMAGES, minio="evil"),
        replace(MIRRORED_IMAGES, seaweedfs="evil"),
    ]
)
"""Default images of the operator, which the policy may not allow."""


@st.composite
def servers(draw: st.DrawFn) -> api.MLflowServer:
    """A random server, often with an allowed value where the policy has a limit."""
    spec: Object = draw(specs(arbitrary_one_in=0))
    if draw(st.booleans()):
        spec["image"] = draw(st.sampled_from([f"{PREFIX}/mlflow:1", f"{PREFIX}-evil/mlflow:1"]))
    for field in draw(st.sets(st.sampled_from(["image", "service", "backup", "restoreFrom", "podTemplate"]))):
        spec.pop(field, None)
    try:
        return resource(spec)
    except api.InvalidResource:
        assume(False)
        raise


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(servers(), IMAGES)
def test_random_server_without_violations_creates_only_what_is_allowed(
    parsed: api.MLflowServer, images: Images
) -> None:
    """In all of its pods, and in its Service. That includes the default images."""
    defaults = default_images_of(parsed.spec, NONE, images, {})
    assume(not violations(parsed, [with_policy(**STRICT)], NONE, {}, defaults))
    objects = render.objects(resolve(parsed, ClusterDefaults(images)))
    for pod in pod_specs(objects):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert is_below(container["image"], PREFIX)
        assert pod.get("serviceAccountName", "default") in {"default", "mlflow"}
    assert {obj["spec"].get("type", "ClusterIP") for obj in objects if obj["kind"] == "Service"} == {
        "ClusterIP"
    }


# Default images

EXTERNAL: Object = {"external": {"uriSecretRef": {"name": "db"}}}
S3: Object = {"s3": {"bucket": "bucket", "credentialsSecretRef": {"name": "k"}}}
RESTORE: Object = {"backup": "20260101T000000Z-00000000", "serverName": "b", **S3}
OTHER_IMAGES = Images(mlflow="e/mlflow", postgres="e/pg:17", minio="e/minio", seaweedfs="e/seaweedfs")


@pytest.mark.parametrize(
    ("spec", "parts", "expected"),
    [
        ({}, BOTH, {"spec.image": "e/mlflow"}),
        ({"image": "a"}, BOTH, {}),
        (
            {"image": "a", "backup": S3, "restoreFrom": RESTORE},
            NONE,
            {"spec.database.embedded.image": "e/pg:17", "spec.artifacts.embedded.image": "e/minio"},
        ),
        (
            {"image": "a", "backup": S3, "restoreFrom": RESTORE},
            BOTH,
            {"spec.backup.image": "e/pg:17", "spec.restoreFrom.image": "e/pg:17"},
        ),
        ({"image": "a", "database": EXTERNAL, "backup": {**S3, "image": "a"}, "artifacts": S3}, NONE, {}),
        (
            {"image": "a", "database": EXTERNAL, "artifacts": {"embedded": {"engine": "SeaweedFS"}}},
            NONE,
            {"spec.artifacts.embedded.image": "e/seaweedfs"},
        ),
        (
            {
                "image": "a",
                "database": {"embedded": {"image": "a"}},
                "artifacts": {"embedded": {"image": "a"}},
                "backup": S3,
            },
            NONE,
            {},
        ),
    ],
)
def test_default_images_of_a_server(spec: Object, parts: frozenset[Part], expected: dict[str, str]) -> None:
    """Only those that its pods run."""
    assert dict(default_images_of(resource(spec).spec, parts, OTHER_IMAGES, {})) == expected


@pytest.mark.parametrize(("backup", "is_taken"), [({}, True), ({"image": "a"}, False)])
def test_backup_that_a_platform_sets_runs_the_default_image(backup: Object, is_taken: bool) -> None:
    """Unless the platform also sets the image."""
    defaults = {"backup": {**S3, **backup}}
    found = dict(default_images_of(resource({"image": "a"}).spec, BOTH, OTHER_IMAGES, defaults))
    assert found == ({"spec.backup.image": "e/pg:17"} if is_taken else {})


def test_default_image_that_is_not_allowed_is_a_violation() -> None:
    """The message says how a server can be created nevertheless."""
    parsed = resource({})
    images = tuple(default_images_of(parsed.spec, BOTH, OTHER_IMAGES, {}))
    text = violations(parsed, [with_policy(images=[PREFIX])], BOTH, {}, images)
    assert (
        f"spec.image is not set, and the default image e/mlflow of the operator is not below {PREFIX}: set the field "
        "to an image there"
    ) in text
    assert violations(parsed, [with_policy(images=["docker.io/e"])], BOTH, {}, images) == ""
    assert violations(parsed, [with_policy()], BOTH, {}, images) == ""


# Stores


@pytest.mark.parametrize(
    ("spec", "parts", "expected"),
    [
        ({"database": {"external": {"uriSecretRef": {"name": "db"}}}}, {Part.ARTIFACTS}, "external"),
        ({"database": {"cloudNativePG": {"clusterName": "pg"}}}, {Part.ARTIFACTS}, "cloudNativePG"),
        ({}, {Part.ARTIFACTS}, "embedded"),
    ],
)
def test_stores_of_their_own_are_refused(spec: Object, parts: set[Part], expected: str) -> None:
    text = message(spec, with_policy(stores="PlatformOnly"), parts=frozenset(parts))
    assert f"spec.database uses {expected}, but only stores of a platform are allowed" in text
    assert "set spec.database to platform: {} and spec.platformRef to shared" in text
    assert "spec.artifacts" not in text


def test_all_violations_are_in_one_message() -> None:
    spec = {"image": "evil", "service": {"type": "NodePort"}, **pods(serviceAccountName="ci")}
    policy: Object = {"stores": "PlatformOnly", "images": [PREFIX], "serviceAccountNames": ["mlflow"]}
    text = message(spec, with_policy(**policy), parts=NONE)
    for field in ("spec.database", "spec.artifacts", "spec.image", "spec.service.type", "serviceAccountName"):
        assert field in text


def test_store_that_the_platform_does_not_offer_is_free() -> None:
    """Servers need one."""
    offered = resolved({**without("database"), "policy": {"stores": "PlatformOnly"}})
    text = message({}, offered, parts=NONE)
    assert "spec.artifacts uses embedded" in text
    assert "spec.database" not in text


def test_policies_of_all_platforms_apply() -> None:
    """In an order that does not change."""
    strict, open_ = with_policy("strict", images=[PREFIX]), with_policy("open", serviceTypes=["NodePort"])
    spec = {"image": "evil"}
    text = message(spec, strict, open_)
    assert text == message(spec, open_, strict)
    assert text.index('"open"') < text.index('"strict"')


def test_message_names_a_few_of_many_prefixes() -> None:
    prefixes = [f"registry.example.com/{number:03}" for number in range(64)]
    text = message({"image": "evil"}, with_policy(images=prefixes))
    assert (
        "/000, registry.example.com/001, registry.example.com/002, registry.example.com/003 or others" in text
    )
    assert len(text) < 1000


# Number of servers


def count(name: str, created: dict[str, str], limit: int | None) -> str:
    """The violations of a server among others."""
    return violations(resource({}, name), [with_policy(serversPerNamespace=limit)], BOTH, created, ())


FIRST, SECOND = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"


@pytest.mark.parametrize(
    ("created", "allowed"),
    [
        ({"a": SECOND, "b": FIRST}, "b"),
        ({"b": FIRST, "a": FIRST}, "a"),
        ({"b": FIRST}, "b"),
    ],
    ids=["older", "same second", "only one"],
)
def test_oldest_servers_are_allowed(created: dict[str, str], allowed: str) -> None:
    for name in created:
        text = count(name, created, 1)
        assert (text == "") == (name == allowed)
        assert text == "" or "serversPerNamespace is 1" in text
        assert count(name, created, None) == ""


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([FIRST, SECOND]), min_size=1),
    st.integers(1, 9),
)
def test_exactly_the_limit_is_allowed(created: dict[str, str], limit: int) -> None:
    """All reconciles agree which servers these are."""
    allowed = [name for name in created if count(name, created, limit) == ""]
    assert len(allowed) == min(limit, len(created))


def test_message_does_not_change_with_other_servers() -> None:
    """Each change would be a write and an Event."""
    created = {"a": FIRST, "z": FIRST}
    assert count("z", created, 1) == count("z", {**created, "b": SECOND}, 1) != ""


def test_default_policy_limits_service_types_only() -> None:
    """The default of `serviceTypes` is safe, and the others allow everything."""
    policy = with_policy().policy
    assert policy.manifest() == {
        "stores": "Any",
        "images": [],
        "serviceTypes": ["ClusterIP"],
        "serviceAccountNames": [],
    }
    assert api.parse({"metadata": {"name": "a"}, "spec": {}}).spec.service.type in policy.service_types
