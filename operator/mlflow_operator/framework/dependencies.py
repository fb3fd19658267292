"""Everything a reconcile may touch or ask, in one place: what tests replace, and nothing is global."""

from collections.abc import Callable
from dataclasses import dataclass

from mlflow_operator.clients.s3.client import ObjectStores
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.events import Events
from mlflow_operator.model.versions import Images
from mlflow_operator.status.metrics import Metrics


@dataclass(frozen=True)
class Dependencies:
    """`now` gives the time as RFC 3339, `password` a new random word that needs no quoting anywhere."""

    cluster: KubernetesClient
    stores: ObjectStores
    events: Events
    metrics: Metrics
    images: Images
    cluster_domain: str
    now: Callable[[], str]
    generate_password: Callable[[], str]
