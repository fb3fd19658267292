"""Helm's error for a server's release that the API server rejects. test_embedded tests the chart on a real server."""

import pytest

from tests.e2e.helm import SERVER_CHART, helm
from tests.e2e.kube import Kube


def test_helm_shows_the_api_servers_error_for_an_invalid_spec(ns: Kube) -> None:
    """The error contains the remedy; the schema of the chart's values cannot express this rule."""
    both = {"database": {"embedded": {}, "external": {"host": "db", "credentialsSecretRef": {"name": "db"}}}}
    with pytest.raises(AssertionError, match=r"spec\.database must set at most one of embedded, external"):
        helm(ns, "install", "tracking", SERVER_CHART, values=both)
