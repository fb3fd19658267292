"""What a shared server does not offer unless its spec asks for it."""

import requests

from tests.e2e.server import Server

GROUP = "shared"

API_PATH = "/ajax-api/3.0/mlflow"


def test_no_usage_data_is_sent(shared_server: Server) -> None:
    """The server tells its web UI not to send any."""
    response = requests.get(f"{shared_server.url}{API_PATH}/ui-telemetry", timeout=10)
    assert response.json()["disable_ui_telemetry"] is True


def test_assistant_is_not_offered(shared_server: Server) -> None:
    """Neither its API nor its panel in the web UI."""
    assert requests.get(f"{shared_server.url}{API_PATH}/assistant/config", timeout=10).status_code == 404
    assert "[data-assistant-ui]{display:none" in requests.get(shared_server.url, timeout=10).text
