"""Service of the server: `spec.service`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.string_types import Annotations


class ServiceType(StrEnum):
    """Supported types of the Service."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Service(Model):
    """Service of the server. It has the name of the server."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """Type of the Service. ClusterIP: reachable inside the cluster. NodePort: also at a port of each node.
    LoadBalancer: also at an address of the cluster's load balancer. Defaults to ClusterIP.
    """
    port: Annotated[Int32, Field(ge=1, le=65535)] = 5000
    """Port of the Service. Defaults to 5000."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service, such as a cloud provider's settings of the load balancer."""
