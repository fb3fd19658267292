"""Typical work of data scientists on a typical server: two pods, tight limits, external stores.

The programs are in tests/workflows and tests/demo. While they run, the server must stay ready for five minutes.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
import yaml
from playwright.sync_api import Page

from tests.cluster.settings import ROOT
from tests.e2e import external_stores
from tests.e2e.browser import browser
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.programs import FOLDERS, ProgramRuns, dns_names, programs
from tests.e2e.server import Server, eventually

GROUP = "workflows"

MANIFEST = FOLDERS[1] / "mlflowserver.yaml"
STABLE_TIME = timedelta(minutes=5)
SLACK = timedelta(seconds=10)
PAGE_MS = 60_000
PROGRAMS = sorted(programs().keys() - {"gate.py"})


pytestmark = [
    pytest.mark.start_early,
    pytest.mark.second_images,
    pytest.mark.long_running(
        reason="runs every program; test_client_program runs one of them outside the cluster and in a pod"
    ),
]


@pytest.fixture(scope="module")
def _runs(module_ns: Kube) -> ProgramRuns:
    ca = create_authority("Company Root")
    postgres = external_stores.start_postgres(module_ns, ca, user="mlflow", password="pass")
    minio = external_stores.start_minio(module_ns, ca)
    keys = {
        "database-uri": "postgresql://mlflow:pass@postgres:5432/mlflow",
        "aws-access-key": minio.access_key,
        "aws-secret-key": minio.secret_key,
    }
    module_ns.apply(secret("mlflow-secrets", **keys), secret("minio-ca", **{"ca.crt": ca.pem}))
    manifest = yaml.safe_load(MANIFEST.read_text().replace("mlops", module_ns.namespace))
    server = Server(module_ns, manifest["metadata"]["name"])
    server.apply(manifest["spec"] | {"service": {"type": "NodePort"}})
    names = [name for host in ("minio", "postgres") for name in dns_names(host, module_ns.namespace)]
    assert postgres.host in names
    return ProgramRuns(server, tuple(names), module_ns.settings.pins["IMAGE_CLIENT"])


@pytest.fixture
def runs(_runs: ProgramRuns, module_evidence: None) -> ProgramRuns:
    """Program runs on the module's server, whose pods are both ready."""
    return _runs.wait_ready()


@pytest.fixture
def page(runs: ProgramRuns) -> Iterator[Page]:
    """A browser page, outside the cluster."""
    with browser(runs.kube) as chromium:
        window = chromium.new_page(viewport={"width": 1280, "height": 720})
        window.set_default_timeout(PAGE_MS)
        yield window


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs_outside_the_cluster(runs: ProgramRuns, program: str) -> None:
    """With the plain client and the server's URL. The program itself checks what it reads back."""
    runs.run_outside(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs_in_a_pod(runs: ProgramRuns, program: str) -> None:
    """With `envFrom` of the ConfigMap for clients and no other configuration. The stores are not reachable."""
    runs.run_in_pod(program)


def test_printed_run_link_opens_the_run(runs: ProgramRuns, page: Page) -> None:
    """The link that MLflow prints in a terminal opens the run's page."""
    name, link = re.findall(r"View run (\S+) at: (\S+)", runs.run_outside("sweep.py"))[0]
    page.goto(link)
    page.get_by_role("heading", name=name).wait_for()
    page.get_by_text("Finished", exact=True).wait_for()


def test_runs_can_be_compared_in_a_chart(runs: ProgramRuns, page: Page) -> None:
    """Select all runs of the experiment in the list, then Compare.

    The screenshot is the one in docs/guides/example-programs.md.
    """
    experiment = re.findall(r"View experiment at: (\S+)", runs.run_outside("taxi.py"))[0]
    page.goto(f"{experiment}/runs")
    page.get_by_role("checkbox", name="Select all runs").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("heading", name=re.compile(r"Comparing \d+ Runs")).wait_for()
    if (chat := page.get_by_role("button", name="Close", exact=True)).is_visible():
        chat.click()
    page.locator(".parcoords").first.wait_for()
    axis_titles = page.locator(".parcoords .axis-title")
    eventually("the chart shows its axes", lambda: "rmse" in axis_titles.all_text_contents(), PAGE_MS / 1000)
    page.screenshot(path=ROOT / "out" / "compare.png")


def test_both_pods_stay_ready_for_five_minutes(runs: ProgramRuns) -> None:
    """With limits of 1 GiB and half a core each, during all other tests of this module: no restart, always ready."""
    assert len(runs.initial_ready_since) == 2
    timeout_seconds = (STABLE_TIME + SLACK).total_seconds()
    eventually("five minutes have passed", lambda: runs.has_been_stable_for(STABLE_TIME), timeout_seconds)
