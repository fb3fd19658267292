"""Proxied means proxied: whoever reaches the server's Service, and nothing else, can do everything with artifacts."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Response

from tests.e2e.browser import browser
from tests.e2e.mlflow_workload import KIB, MIB, Scientist, checksum, hosts_asked
from tests.e2e.server import Server

GROUP = "shared"


def test_the_server_offers_no_way_around_itself(shared: Server) -> None:
    """A client of 3.15 and later takes presigned URLs whenever these flags say that it may."""
    info = requests.get(f"{shared.url}/api/3.0/mlflow/server-info", timeout=10).json()
    assert info["multipart_uploads_enabled"] is False
    assert info["multipart_downloads_enabled"] is False


def test_the_store_is_out_of_reach_of_these_tests(shared: Server) -> None:
    """Otherwise the rest of this file would prove nothing."""
    store = f"{shared.names.artifact_store}.{shared.kube.namespace}.svc"
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
def test_files_of_any_size_pass_through_the_server(shared: Server, size: int) -> None:
    """Up and down again, unchanged; every request goes to the server's own address."""
    scientist = Scientist(shared.url)
    run = scientist.run()
    with hosts_asked() as asked:
        logged = scientist.upload(run, "file.bin", size)
        assert scientist.download(run, "file.bin") == logged
    assert asked == {urlsplit(shared.url).netloc}


def test_models_come_back_through_the_server(shared: Server) -> None:
    """By alias from the registry, as an application loads them."""
    scientist = Scientist(shared.url)
    with hosts_asked() as asked:
        scientist.finds(scientist.work("proxied"))
    assert asked == {urlsplit(shared.url).netloc}


def test_an_artifact_that_is_not_there_is_told_as_that(shared: Server) -> None:
    """404, which clients take for an answer; a 500 they would try again for minutes."""
    scientist = Scientist(shared.url)
    run = scientist.client.get_run(scientist.run())
    path = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    url = f"{shared.url}/api/2.0/mlflow-artifacts/artifacts/{path}/missing.bin"
    assert requests.get(url, timeout=30).status_code == requests.codes.not_found


def test_the_page_downloads_an_artifact(shared: Server, tmp_path: Path) -> None:
    """A person opens the run in a browser, picks the file and presses the download button."""
    scientist = Scientist(shared.url)
    run = scientist.run()
    logged = scientist.upload(run, "report.bin", 64 * KIB)
    experiment = scientist.client.get_run(run).info.experiment_id
    elsewhere: set[str] = set()

    def note(response: Response) -> None:
        if urlsplit(response.url).netloc != urlsplit(shared.url).netloc and response.url.startswith("http"):
            elsewhere.add(response.url)

    with browser(shared.kube) as running:
        page = running.new_page(accept_downloads=True)
        page.on("response", note)
        page.goto(f"{shared.url}/#/experiments/{experiment}/runs/{run}/artifacts", timeout=60_000)
        page.get_by_text("report.bin").first.click(timeout=60_000)
        with page.expect_download(timeout=60_000) as download:
            # it shows an arrow and has no name
            page.locator("button[data-component-id*='artifactview']").first.click(timeout=30_000)
        file = tmp_path / "downloaded"
        download.value.save_as(file)
        page.screenshot(path=shared.kube.settings.root / "out" / "page.png")
    assert checksum(file) == logged
    assert not elsewhere, f"the page asked others than its server: {elsewhere}"
