"""Violations of the policies of platforms by a server.

The policies of all platforms that select the namespace apply: a server cannot escape one by naming another platform, or
by bringing stores of its own. Checked are what the server sets itself, and the default images of the operator, which
other administrators may have chosen than those of the platform. The platform's own defaults are not checked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlflow_operator import api
from mlflow_operator.api.artifacts import Engine
from mlflow_operator.api.mlflowserver import Spec
from mlflow_operator.api.platform_policy import IMAGE_PATH_PATTERN, Policy, StorePolicy
from mlflow_operator.api.rules import camel_case
from mlflow_operator.model.platform import Part, Platform
from mlflow_operator.model.platform_choice import FIELDS
from mlflow_operator.model.versions import Images

DEFAULT_SERVICE_ACCOUNT = "default"
"""Service account of pods that name none. The pods get no token of it."""

_DEFAULT_REGISTRY, _DEFAULT_PATH = "docker.io", "library"
_REGISTRY_ALIASES = {"index.docker.io": _DEFAULT_REGISTRY, "registry-1.docker.io": _DEFAULT_REGISTRY}
_IMAGE_PATH = re.compile(IMAGE_PATH_PATTERN)
_TAG = re.compile(r":[^/:]*\Z")

_MAX_NAMED = 4
"""Maximum number of allowed values that a message names. The platform lists all of them."""

_STORE_MEMBERS: Mapping[Part, tuple[str, ...]] = {
    Part.DATABASE: ("external", "provision", "cloud_native_pg"),
    Part.ARTIFACTS: ("s3", "external"),
}


def violations(
    server: api.MLflowServer,
    platforms: Iterable[Platform],
    parts: frozenset[Part],
    created: Mapping[str, str],
    default_images: Iterable[tuple[str, str]],
) -> str:
    """Return a message with all violations by `server` of the policies of `platforms`; empty if there are none.

    `platforms` select the namespace. `parts` are the stores that the server uses of a platform. `created` are the
    creation times of all servers in the namespace (RFC 3339), by their names; it is only used with `counts_servers`.
    `default_images` are those of `default_images_of`.
    """
    default_images = tuple(default_images)
    sentences = []
    for platform in sorted(platforms, key=lambda each: each.name):
        found = [
            *_stores(server.spec, platform, parts),
            *_images(server.spec, platform.policy),
            *_default_images(default_images, platform.policy),
            *_service_type(server.spec, platform.policy),
            *_service_account(server.spec, platform.policy),
            *_count(server, platform.policy, created),
        ]
        if found:
            sentences.append(
                f'The server violates the policy of MLflowPlatform "{platform.name}": {"; ".join(found)}. If it needs '
                "this, ask the administrator of the platform to allow it in spec.policy."
            )
    return " ".join(sentences)


def counts_servers(platforms: Iterable[Platform]) -> bool:
    """Whether the policy of one of the platforms limits the number of servers."""
    return any(platform.policy.servers_per_namespace is not None for platform in platforms)


def _stores(spec: Spec, platform: Platform, parts: frozenset[Part]) -> Iterator[str]:
    if platform.policy.stores is not StorePolicy.PLATFORM_ONLY:
        return
    for part, store in ((Part.DATABASE, spec.database), (Part.ARTIFACTS, spec.artifacts)):
        if part not in platform.parts - parts:
            continue
        field = FIELDS[part]
        own = [member for member in _STORE_MEMBERS[part] if getattr(store, member) is not None]
        member = camel_case(own[0]) if own else "embedded"
        reference = (
            "" if spec.platform_ref or platform.is_default else f" and spec.platformRef to {platform.name}"
        )
        yield (
            f"{field} uses {member}, but only stores of a platform are allowed: set {field} to "
            f"platform: {{}}{reference}"
        )


def _images(spec: Spec, policy: Policy) -> Iterator[str]:
    if not policy.images:
        return
    for field, image in images_of(spec):
        if not any(is_below(image, prefix) for prefix in policy.images):
            yield (
                f"{field} is {image}, but only images below {_alternatives(policy.images)} are allowed: use one of "
                "them, or remove the field to use the default"
            )


def _default_images(images: Iterable[tuple[str, str]], policy: Policy) -> Iterator[str]:
    if not policy.images:
        return
    for field, image in images:
        if not any(is_below(image, prefix) for prefix in policy.images):
            yield (
                f"{field} is not set, and the default image {image} of the operator is not below "
                f"{_alternatives(policy.images)}: set the field to an image there"
            )


def default_images_of(
    spec: Spec, parts: frozenset[Part], images: Images, platform_defaults: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield the image fields for which a server takes the operator's default, and the default. MLflow has no tag.

    `parts` are the stores that the server uses of a platform, `platform_defaults` the defaults that it took of one.
    """
    if not spec.image:
        yield "spec.image", images.mlflow
    is_embedded = {
        part: part not in parts and not any(getattr(store, member) for member in _STORE_MEMBERS[part])
        for part, store in ((Part.DATABASE, spec.database), (Part.ARTIFACTS, spec.artifacts))
    }
    database, store = spec.database.embedded, spec.artifacts.embedded
    if is_embedded[Part.DATABASE] and not (database and database.image):
        yield "spec.database.embedded.image", images.postgres
    if is_embedded[Part.ARTIFACTS] and not (store and store.image):
        engine = store.engine if store else Engine.MINIO
        yield (
            "spec.artifacts.embedded.image",
            images.minio if engine is Engine.MINIO else images.seaweedfs,
        )
    if is_embedded[Part.DATABASE]:
        return  # Backup and restore use the image of the database.
    default_backup = platform_defaults.get("backup")
    if (spec.backup and not spec.backup.image) or (
        spec.backup is None and default_backup and not default_backup.get("image")
    ):
        yield "spec.backup.image", images.postgres
    if spec.restore_from and not spec.restore_from.image:
        yield "spec.restoreFrom.image", images.postgres


def images_of(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield the fields with images that a spec sets, and their values. `podTemplate` has no containers."""
    embedded_database, embedded_store = spec.database.embedded, spec.artifacts.embedded
    fields = {
        "spec.image": spec.image,
        "spec.database.embedded.image": embedded_database.image if embedded_database else None,
        "spec.artifacts.embedded.image": embedded_store.image if embedded_store else None,
        "spec.backup.image": spec.backup.image if spec.backup else None,
        "spec.restoreFrom.image": spec.restore_from.image if spec.restore_from else None,
    }
    yield from ((field, image) for field, image in fields.items() if image)


def is_below(image: str, prefix: str) -> bool:
    """Whether an image is the repository `prefix` or below it. `prefix` has a registry and is in lower case.

    An image without a registry is one of Docker Hub. A path that no container runtime accepts is below no prefix.
    """
    name = image.partition("@")[0]
    registry, slash, path = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = _DEFAULT_REGISTRY, name
    registry = registry.lower()
    registry = _REGISTRY_ALIASES.get(registry, registry)
    path = _TAG.sub("", path)
    if not _IMAGE_PATH.fullmatch(path):
        return False
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"{_DEFAULT_PATH}/{path}"
    return f"{registry}/{path}/".startswith(f"{prefix}/")


def _service_type(spec: Spec, policy: Policy) -> Iterator[str]:
    if spec.service.type not in policy.service_types:
        allowed = [service_type.value for service_type in policy.service_types]
        yield (
            f"spec.service.type is {spec.service.type.value}, but only {_alternatives(allowed)} is allowed: change it"
        )


def _service_account(spec: Spec, policy: Policy) -> Iterator[str]:
    name = spec.pod_template.spec.service_account_name
    if policy.service_account_names and name not in {
        None,
        DEFAULT_SERVICE_ACCOUNT,
        *policy.service_account_names,
    }:
        yield (
            f"spec.podTemplate.spec.serviceAccountName is {name}, but only "
            f"{_alternatives(policy.service_account_names)} is allowed: change or remove it"
        )


def _count(server: api.MLflowServer, policy: Policy, created: Mapping[str, str]) -> Iterator[str]:
    limit = policy.servers_per_namespace
    if limit is None:
        return
    oldest = sorted(created, key=lambda name: (created[name], name))[:limit]
    if server.metadata.name not in oldest:
        yield (
            f"serversPerNamespace is {limit}, and namespace {server.metadata.namespace} has as many older servers: "
            "delete one of them, or create this one in another namespace"
        )


def _alternatives(values: Iterable[str]) -> str:
    ordered = sorted(values)
    if len(ordered) > _MAX_NAMED:
        ordered = [*ordered[:_MAX_NAMED], "others"]
    return " or ".join(filter(None, [", ".join(ordered[:-1]), ordered[-1]]))
