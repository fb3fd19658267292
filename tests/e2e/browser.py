"""A headless Chromium for MLflow's web UI. On Debian, as root, it is installed if it is missing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.cluster import locks
from tests.e2e.kube import Kube

NAMES = ("chromium", "chromium-browser", "google-chrome")
# CI containers have no user namespaces for the sandbox, and their /dev/shm has only 64 MiB
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def browser_path(kube: Kube) -> str:
    """Return Chromium's path. Raises AssertionError with what to install if it is missing and cannot be installed."""
    # One process at a time, because apt-get fails while another apt-get runs.
    with locks.hold(kube.settings.cache / "browser-installation"):
        if found := _installed():
            return found
        can_install = os.geteuid() == 0 and shutil.which("apt-get")
        assert can_install, f"No browser found. Install one of: {', '.join(NAMES)}."
        kube.run("apt-get", "update", "-q")
        kube.run(
            "env", "DEBIAN_FRONTEND=noninteractive",
            "apt-get", "install", "-yq", "--no-install-recommends", "chromium", within=600,
        )  # fmt: skip
        found = _installed()
        assert found, "apt-get installed chromium, but it is not on PATH."
        return found


@contextmanager
def browser(kube: Kube) -> Iterator[Browser]:
    """Start a browser that uses no proxy, and close it at the end."""
    path = browser_path(kube)
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--no-proxy-server"])
        try:
            yield instance
        finally:
            instance.close()


def _installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)
