"""Everything a reconcile may touch or ask, in one place: what tests replace, and nothing is global."""

from collections.abc import Callable
from dataclasses import dataclass

from mlflow_operator.controller.cluster import Cluster
from mlflow_operator.controller.events import Events
from mlflow_operator.controller.metrics import Metrics
from mlflow_operator.core.versions import Images
from mlflow_operator.providers.s3 import ObjectStores


@dataclass(frozen=True)
class Outside:
    """`now` gives the time as RFC 3339, `password` a new random word that needs no quoting anywhere."""

    cluster: Cluster
    stores: ObjectStores
    events: Events
    metrics: Metrics
    images: Images
    cluster_domain: str
    now: Callable[[], str]
    password: Callable[[], str]
