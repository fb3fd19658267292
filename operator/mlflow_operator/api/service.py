"""How the server is reached inside the cluster: `spec.service`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.string_types import Annotations


class ServiceType(StrEnum):
    """Kinds of Service that make sense for a server."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Service(Model):
    """The Service of the server, named as the server is."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP: reached inside the cluster. NodePort: also at a port of each node. LoadBalancer: also at an
    address that the cluster's load balancer gives.
    """
    port: Annotated[Int32, Field(ge=1, le=65535)] = 5000
    """Port of the Service."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service, such as a cloud's settings for its load balancer."""
