"""No platform and server lead to a host, bucket, prefix, role or Secret outside what the platform allows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.api import mlflowplatform
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice
from mlflow_operator.model.platform import Part, Platform, PlatformUse, owners_prefix, resolve_platform
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.server import ObjectStore, ProvisionedDatabase, SecretKey, Server
from mlflow_operator.model.versions import Images
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.api.platform_refusals import platform
from tests.unit.api.specs import specs
from tests.unit.servers import resource
from tests.unit.test_render import GENERATED

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
NAMESPACES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
SECRETS = st.sampled_from(["postgres-admin", "minio-admin", "ca", "server-database", "server-server"])
SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.=@-]{0,8}", fullmatch=True)
CA = st.builds(lambda name: {"caSecretRef": {"name": name}}, SECRETS)
HOSTILE: Object = {"name": "postgres-admin", "namespace": "mlflow-platform"}


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    """A valid prefix of a platform."""
    segments = draw(st.permutations(["{namespace}", "{name}", *draw(st.lists(SEGMENTS, max_size=2))]))
    assume(segments[0] != mlflowplatform.OWNERS_SEGMENT)
    return "/".join(segments)


@st.composite
def platform_specs(draw: st.DrawFn) -> Object:
    """The spec of a valid platform, with Secrets in the namespace mlflow-platform or that of the servers."""
    spec = platform(
        secretsNamespace=draw(st.sampled_from(["mlflow-platform", "default"])),
        database__postgres__host=draw(st.sampled_from(["pg.example.com", "10.0.0.1"])),
        database__postgres__port=draw(st.integers(1, 65535)),
        database__postgres__adminSecretRef={"name": draw(SECRETS)},
        database__postgres__tls=draw(CA),
        artifacts__s3__endpoint=draw(st.sampled_from(["https://minio.example.com", "http://10.0.0.1:9000"])),
        artifacts__s3__bucket=draw(st.sampled_from(["mlflow", "models"])),
        artifacts__s3__prefix=draw(prefixes()),
        artifacts__s3__adminSecretRef={"name": draw(SECRETS)},
        artifacts__s3__tls=draw(CA),
    )
    for part in draw(st.sampled_from([(), ("database",), ("artifacts",)])):
        spec.pop(part)
    return spec


def platforms() -> st.SearchStrategy[Platform]:
    """Valid platforms."""
    return platform_specs().map(
        lambda spec: resolve_platform(
            mlflowplatform.parse({"metadata": {"name": "shared", "uid": "u"}, "spec": spec})
        )
    )


@st.composite
def server_specs(draw: st.DrawFn) -> Object:
    """A random spec. Some request the platform, some reference the Secrets of the platform themselves."""
    spec: Object = draw(specs(arbitrary_one_in=0))
    database: Object | None = draw(
        st.sampled_from([None, {}, {"platform": {}}, {"provision": {"host": "evil"}}])
    )
    artifacts: Object | None = draw(
        st.sampled_from([None, {}, {"platform": {}}, {"s3": {"endpoint": "http://evil:9000"}}])
    )
    if database is not None:
        spec = {**spec, "database": database or None}
        if "provision" in database:
            spec["database"] = {"provision": {**database["provision"], "adminSecretRef": HOSTILE}}
    if artifacts is not None:
        spec = {**spec, "artifacts": artifacts or None}
        if "s3" in artifacts:
            spec["artifacts"] = {"s3": {**artifacts["s3"], "bucket": "victim", "adminSecretRef": HOSTILE}}
    return {key: value for key, value in spec.items() if value is not None}


@dataclass(frozen=True)
class Found:
    """A reference to a Secret of the platform, and the store that contains it."""

    store: Any
    key: SecretKey


def platform_references(part: Any, store: Any = None) -> Iterator[Found]:
    """Find all references that are read with the rights of the platform."""
    if isinstance(part, ObjectStore | ProvisionedDatabase):
        store = part
    if isinstance(part, SecretKey):
        if part.namespace is not None:
            yield Found(store, part)
    elif is_dataclass(part):
        for field in fields(part):
            yield from platform_references(getattr(part, field.name), store)
    elif isinstance(part, tuple | list):
        for item in part:
            yield from platform_references(item, store)


def database_name(namespace: str, name: str) -> str:
    """The name that the documentation promises, not computed with the code under test."""
    full = f"mlflow_{namespace}_{name}"
    if len(full) <= 61:
        return full
    return f"{full[:43]}__{hashlib.sha256(f'{namespace}/{name}'.encode()).hexdigest()[:16]}"


def prefix_in(template: str, namespace: str, name: str) -> str:
    """The prefix that the documentation promises, not computed with the code under test."""
    return template.replace("{namespace}", namespace).replace("{name}", name)


def check_database(server: Server, offered: Platform) -> None:
    """The database is the one that the platform gives this server."""
    database = server.database
    assert isinstance(database, ProvisionedDatabase)
    assert offered.database
    assert (database.host, database.port) == (offered.database.host, offered.database.port)
    assert database.database == database.role == database_name(server.owner.namespace, server.owner.name)
    assert database.tls is offered.database.tls
    assert server.database_field == f"MLflowPlatform {offered.name}, spec.database.postgres"


def check_store(server: Server, offered: Platform) -> None:
    """The bucket and prefix are those that the platform gives this server, and its policy covers nothing else."""
    store, artifacts = server.artifacts.s3, offered.artifacts
    assert store
    assert artifacts
    assert (store.endpoint, store.bucket) == (artifacts.endpoint, artifacts.bucket)
    assert store.prefix == prefix_in(artifacts.prefix, server.owner.namespace, server.owner.name)
    statements = bucket_policy.policy(store)["Statement"]
    bucket = f"arn:aws:s3:::{artifacts.bucket}"
    assert {resource for statement in statements for resource in statement["Resource"]} == {
        bucket,
        f"{bucket}/{store.prefix}/*",
    }


@settings(SLOW, max_examples=40)
@given(server_specs(), platforms(), NAMES, NAMESPACES)
def test_a_random_server_gets_only_what_the_platform_allows(
    spec: Object, offered: Platform, name: str, namespace: str
) -> None:
    try:
        parsed = resource(spec, name)
        parsed = parsed.model_copy(
            update={"metadata": parsed.metadata.model_copy(update={"namespace": namespace})}
        )
        requested = platform_choice.request(parsed)
        parts = requested.parts(offered) if requested else frozenset()
    except (api.InvalidResource, ConfigurationError):
        assume(False)
        raise
    use = PlatformUse(offered, parts, "namespace-uid") if parts else None
    server = resolve(parsed, ClusterDefaults(Images()), use)
    if Part.DATABASE in parts:
        check_database(server, offered)
    if Part.ARTIFACTS in parts:
        check_store(server, offered)
    allowed = {(ref.key.name, ref.key.key, ref.key.namespace) for ref in platform_references(offered)}
    for reference in platform_references(server):
        assert reference.store.origin
        assert reference.key.namespace == offered.secrets_namespace
        assert (reference.key.name, reference.key.key, reference.key.namespace) in allowed
    database, store = server.database, server.artifacts.s3
    if isinstance(database, ProvisionedDatabase) and database.origin:
        check_database(server, offered)
    if store and store.origin:
        check_store(server, offered)
    for obj in (*desired.secrets(server, GENERATED), *desired.objects(server)):
        assert obj["metadata"]["namespace"] == server.owner.namespace
    assert server.database_ca is None or server.database_ca.namespace is None
    assert store is None or store.ca is None or store.ca.namespace is None


@settings(SLOW, max_examples=200)
@given(st.tuples(prefixes(), NAMESPACES, NAMES), st.tuples(prefixes(), NAMESPACES, NAMES))
def test_no_prefix_contains_the_owner_of_another(
    first_server: tuple[str, str, str], second_server: tuple[str, str, str]
) -> None:
    """Of any templates that a platform had over time. No owner is recorded under another one either."""

    def prefix_of(template: str, namespace: str, name: str) -> str:
        spec = platform(artifacts__s3__prefix=template)
        found = resolve_platform(mlflowplatform.parse({"metadata": {"name": "shared"}, "spec": spec}))
        assert found.artifacts
        return found.artifacts.prefix_of(namespace, name)

    first, second = prefix_of(*first_server), prefix_of(*second_server)
    owners = [f"{owners_prefix(prefix)}/" for prefix in (first, second)]
    assert not any(owner.startswith(f"{prefix}/") for owner in owners for prefix in (first, second))
    assert (owners[0] == owners[1]) == (first == second)
    assert first == second or not owners[0].startswith(owners[1])
    if first_server[0] == second_server[0] and first_server != second_server:
        assert not f"{first}/".startswith(f"{second}/")
