"""What data scientists do all day, on a server as teams run it today: two pods, tight limits, stores of their own.

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
from tests.e2e.certificates import authority
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.programs import FOLDERS, Workbench, all_names, programs
from tests.e2e.server import Server, eventually

GROUP = "workflows"

MANIFEST = FOLDERS[1] / "mlflowserver.yaml"
STABLE = timedelta(minutes=5)
SLACK = timedelta(seconds=10)
PAGE_MS = 60_000
PROGRAMS = sorted(programs().keys() - {"gate.py"})


pytestmark = [
    pytest.mark.start_early,
    pytest.mark.second_images,
    pytest.mark.long_running(
        reason="every program; test_program runs one of them outside the cluster and in a pod"
    ),
]


@pytest.fixture(scope="module")
def _bench(module_ns: Kube) -> Workbench:
    ours = authority("Company Root")
    postgres = external_stores.postgres(module_ns, ours, user="mlflow", password="pass")
    minio = external_stores.minio(module_ns, ours)
    keys = {
        "database-uri": "postgresql://mlflow:pass@postgres:5432/mlflow",
        "aws-access-key": minio.access_key,
        "aws-secret-key": minio.secret_key,
    }
    module_ns.apply(secret("mlflow-secrets", **keys), secret("minio-ca", **{"ca.crt": ours.pem}))
    manifest = yaml.safe_load(MANIFEST.read_text().replace("mlops", module_ns.namespace))
    server = Server(module_ns, manifest["metadata"]["name"])
    server.apply(manifest["spec"] | {"service": {"type": "NodePort"}})
    names = [name for host in ("minio", "postgres") for name in all_names(host, module_ns.namespace)]
    assert postgres.host in names
    return Workbench(server, tuple(names), module_ns.settings.pins["IMAGE_CLIENT"])


@pytest.fixture
def bench(_bench: Workbench, evidence_of_module: None) -> Workbench:
    """The server of this module, both pods ready."""
    return _bench.begin()


@pytest.fixture
def page(bench: Workbench) -> Iterator[Page]:
    """A browser's window, outside the cluster."""
    with browser(bench.kube) as running:
        window = running.new_page(viewport={"width": 1280, "height": 720})
        window.set_default_timeout(PAGE_MS)
        yield window


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_works_outside_the_cluster(bench: Workbench, program: str) -> None:
    """With the plain client and the server's URL; the program itself checks that all came back."""
    bench.outside(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_works_in_a_pod(bench: Workbench, program: str) -> None:
    """With `envFrom` of the ConfigMap for clients and nothing else; no way leads to the stores."""
    bench.in_pod(program)


def test_the_link_that_a_run_prints_opens_it(bench: Workbench, page: Page) -> None:
    """Whoever clicks it in a terminal sees that run."""
    name, link = re.findall(r"View run (\S+) at: (\S+)", bench.outside("sweep.py"))[0]
    page.goto(link)
    page.get_by_role("heading", name=name).wait_for()
    page.get_by_text("Finished", exact=True).wait_for()


def test_runs_are_compared_in_a_chart(bench: Workbench, page: Page) -> None:
    """All runs of the search picked in the list, then Compare. The picture is the one in docs/workflows.md."""
    experiment = re.findall(r"View experiment at: (\S+)", bench.outside("taxi.py"))[0]
    page.goto(f"{experiment}/runs")
    page.get_by_role("checkbox", name="Select all runs").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("heading", name=re.compile(r"Comparing \d+ Runs")).wait_for()
    if (chat := page.get_by_role("button", name="Close", exact=True)).is_visible():
        chat.click()
    page.locator(".parcoords").first.wait_for()
    drawn = page.locator(".parcoords .axis-title")
    eventually("the chart shows its axes", lambda: "rmse" in drawn.all_text_contents(), PAGE_MS / 1000)
    page.screenshot(path=ROOT / "out" / "compare.png")


def test_both_pods_stay_ready_for_five_minutes(bench: Workbench) -> None:
    """In 1 GiB and half a core each, with all of the above meanwhile: no restart, not unready once."""
    assert len(bench.first) == 2
    most = (STABLE + SLACK).total_seconds()
    eventually("five minutes have passed", lambda: bench.undisturbed(STABLE), most)
