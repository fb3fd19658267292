"""A headless Chromium for the page that MLflow serves; as root on Debian it is installed where it is missing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.e2e.kube import Kube

NAMES = ("chromium", "chromium-browser", "google-chrome")
# CI containers have no user namespaces for the sandbox and a /dev/shm of 64 MiB
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def program(kube: Kube) -> str:
    """Chromium's path. AssertionError with what to install where it can't be had."""
    if found := _installed():
        return found
    can = os.geteuid() == 0 and shutil.which("apt-get")
    assert can, f"There is no browser. Install one of: {', '.join(NAMES)}."
    kube.run("apt-get", "update", "-q")
    kube.run(
        "env", "DEBIAN_FRONTEND=noninteractive",
        "apt-get", "install", "-yq", "--no-install-recommends", "chromium", within=600,
    )  # fmt: skip
    found = _installed()
    assert found, "apt-get installed chromium, and yet there is none on PATH."
    return found


@contextmanager
def browser(kube: Kube) -> Iterator[Browser]:
    """A browser that asks no proxy; it is closed at the end."""
    path = program(kube)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--no-proxy-server"])
        try:
            yield running
        finally:
            running.close()


def _installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)
