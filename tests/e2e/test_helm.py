"""What Helm says of a server's release that the API server refuses. test_embedded tests the chart on a real server."""

import pytest

from tests.e2e.helm import SERVER_CHART, helm
from tests.e2e.kube import Kube


def test_helm_shows_the_api_server_s_sentence_for_a_refused_spec(ns: Kube) -> None:
    """With the way out, where a schema of values cannot express the rule."""
    both = {"database": {"embedded": {}, "external": {"host": "db", "credentialsSecretRef": {"name": "db"}}}}
    with pytest.raises(AssertionError, match=r"spec\.database takes at most one of embedded, external"):
        helm(ns, "install", "tracking", SERVER_CHART, values=both)
