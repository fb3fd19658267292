"""Proxied access: clients that only reach the server's Service can use all artifact operations."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Response

from tests.e2e.browser import browser
from tests.e2e.mlflow_workload import KIB, MIB, Workload, checksum, requested_hosts
from tests.e2e.server import Server

GROUP = "shared"


def test_server_info_disables_direct_transfers(shared_server: Server) -> None:
    """Clients since MLflow 3.15 use presigned URLs if these flags are true."""
    info = requests.get(f"{shared_server.url}/api/3.0/mlflow/server-info", timeout=10).json()
    assert info["multipart_uploads_enabled"] is False
    assert info["multipart_downloads_enabled"] is False


def test_store_is_not_reachable_for_these_tests(shared_server: Server) -> None:
    """Otherwise the other tests of this module would prove nothing."""
    store = f"{shared_server.names.artifact_store}.{shared_server.kube.namespace}.svc"
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(store, 9000)


LARGE = pytest.mark.long_running(reason="600 MiB each way; in `make test` 64 MiB pass through the server")


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(KIB, id="1KiB"),
        pytest.param(64 * MIB, id="64MiB"),
        pytest.param(600 * MIB, id="600MiB", marks=LARGE),
    ],
)
def test_files_of_any_size_are_proxied(shared_server: Server, size: int) -> None:
    """Files are uploaded and downloaded unchanged, and all requests go to the server's address."""
    workload = Workload(shared_server.url)
    run = workload.create_run()
    with requested_hosts() as asked:
        logged = workload.upload(run, "file.bin", size)
        assert workload.download(run, "file.bin") == logged
    assert asked == {urlsplit(shared_server.url).netloc}


def test_models_are_loaded_through_the_server(shared_server: Server) -> None:
    """By alias from the model registry, like applications load them."""
    workload = Workload(shared_server.url)
    with requested_hosts() as asked:
        workload.check_data(workload.log_data("proxied"))
    assert asked == {urlsplit(shared_server.url).netloc}


def test_missing_artifact_is_404(shared_server: Server) -> None:
    """Clients accept a 404, but would retry a 500 for minutes."""
    workload = Workload(shared_server.url)
    run = workload.client.get_run(workload.create_run())
    path = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    url = f"{shared_server.url}/api/2.0/mlflow-artifacts/artifacts/{path}/missing.bin"
    assert requests.get(url, timeout=30).status_code == requests.codes.not_found


def test_artifact_can_be_downloaded_in_the_browser(shared_server: Server, tmp_path: Path) -> None:
    """A user opens the run in a browser, selects the file and presses the download button."""
    workload = Workload(shared_server.url)
    run = workload.create_run()
    logged = workload.upload(run, "report.bin", 64 * KIB)
    experiment = workload.client.get_run(run).info.experiment_id
    other_urls: set[str] = set()

    def record(response: Response) -> None:
        if urlsplit(response.url).netloc != urlsplit(shared_server.url).netloc and response.url.startswith(
            "http"
        ):
            other_urls.add(response.url)

    with browser(shared_server.kube) as chromium:
        page = chromium.new_page(accept_downloads=True)
        page.on("response", record)
        page.goto(f"{shared_server.url}/#/experiments/{experiment}/runs/{run}/artifacts", timeout=60_000)
        page.get_by_text("report.bin").first.click(timeout=60_000)
        with page.expect_download(timeout=60_000) as download:
            # the button shows an arrow and has no accessible name
            page.locator("button[data-component-id*='artifactview']").first.click(timeout=30_000)
        file = tmp_path / "downloaded"
        download.value.save_as(file)
        page.screenshot(path=shared_server.kube.settings.root / "out" / "page.png")
    assert checksum(file) == logged
    assert not other_urls, f"the page sent requests to other hosts: {other_urls}"
