"""What a server in a namespace that a platform selects may configure: `spec.policy` of an MLflowPlatform."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, ListSet
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import matches
from mlflow_operator.api.service import ServiceType
from mlflow_operator.api.string_types import ObjectName

_PATH_SEGMENT = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*"

IMAGE_PATH_PATTERN = f"{_PATH_SEGMENT}(/{_PATH_SEGMENT})*"
"""Path of an image in its registry, without tag and digest, as container runtimes accept it."""

ImagePrefix = Annotated[
    str,
    Field(max_length=255),
    matches(
        r"([a-z0-9-]+(\.[a-z0-9-]+)+|localhost|[a-z0-9.-]+:[0-9]{1,5})"
        f"(/{IMAGE_PATH_PATTERN})?",
        "is not a valid image prefix: use a registry in lower case, if necessary with a port, or whole segments of a "
        "path in it, such as registry.example.com/ml, without a tag and without '/' at the end; Docker Hub is "
        "docker.io",
    ),
]
"""Registry, or the beginning of a path in it that ends with a whole segment."""


class StorePolicy(StrEnum):
    """Which stores servers may use."""

    ANY = "Any"
    PLATFORM_ONLY = "PlatformOnly"


class Policy(Model):
    """Limits for the servers in the selected namespaces. Values that the platform sets are not limited, and of those
    that the operator sets only images.
    """

    stores: StorePolicy = StorePolicy.ANY
    """Which stores servers may use. Any: also stores of their own. PlatformOnly: for each store that this platform
    offers, that of a platform; buckets in `backup.s3` and `restoreFrom.s3` are not limited. Defaults to Any.
    """
    images: Annotated[
        tuple[ImagePrefix, ...], Field(max_length=64, examples=[["registry.example.com/ml"]]), ListSet()
    ] = ()
    """Registries and repositories from which servers may use images in fields such as `spec.image`, `backup.image` and
    `database.embedded.image`. A prefix ends at a whole segment: `registry.example.com/ml` also allows
    `registry.example.com/ml/mlflow`, but not `registry.example.com/ml-test`. The default images of the operator must be
    below a prefix, too: otherwise servers must set these fields. If empty, any image is allowed.
    """
    service_types: Annotated[
        tuple[ServiceType, ...],
        Field(min_length=1, max_length=len(ServiceType), examples=[["ClusterIP", "LoadBalancer"]]),
        ListSet(),
    ] = (ServiceType.CLUSTER_IP,)
    """Allowed types of `spec.service.type`. Other types than ClusterIP make a server, which does not authenticate its
    users, reachable from outside the cluster. Defaults to ClusterIP only.
    """
    service_account_names: Annotated[
        tuple[ObjectName, ...], Field(max_length=64, examples=[["mlflow"]]), ListSet()
    ] = ()
    """Allowed values of `spec.podTemplate.spec.serviceAccountName`. The service account `default`, which pods use if
    the field is not set, is always allowed. If empty, any service account is allowed.
    """
    servers_per_namespace: Annotated[Int32 | None, Field(ge=1, le=1000, examples=[3])] = None
    """Number of servers in each selected namespace. The oldest are allowed, by creation time and then by name. If not
    set, any number is allowed.
    """
