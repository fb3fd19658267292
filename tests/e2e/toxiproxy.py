"""A Toxiproxy between servers and their stores: ways that pass, are slow, fall silent or tear."""

from dataclasses import dataclass
from typing import Any

import requests

from tests.e2e.external_stores import start_pod
from tests.e2e.kube import Kube

API, DATABASE, STORE = 8474, 5432, 9000


@dataclass(frozen=True)
class Way:
    """One port of it; `host` is its name in the cluster."""

    api: str
    host: str
    port: int

    def slow(self, milliseconds: int) -> None:
        """What comes back comes so much later."""
        self._be("latency", latency=milliseconds)

    def silent(self) -> None:
        """Connections are taken and stay, and nothing passes: as when a host vanishes, or a firewall forgets."""
        self._be("timeout", timeout=0)

    def torn(self) -> None:
        """Every connection is reset as soon as something comes back."""
        self._be("reset_peer", timeout=0)

    def mended(self) -> None:
        """All passes again; connections that were silent are closed."""
        for toxic in self._ask("GET", ""):
            self._ask("DELETE", f"/{toxic['name']}")

    def _be(self, kind: str, **attributes: int) -> None:
        self.mended()
        self._ask("POST", "", {"name": kind, "type": kind, "stream": "downstream", "attributes": attributes})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self.api}/proxies/to-{self.port}/toxics{path}"
        answer = requests.request(method, url, json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None


def start(kube: Kube, database: str, store: str) -> tuple[Way, Way]:
    """Starts one; gives the ways to the database and to the store, each a `host:port` in the cluster."""
    service = start_pod(
        kube,
        "toxiproxy",
        API,
        None,
        {
            "image": kube.settings.pins["IMAGE_TOXIPROXY"],
            "readinessProbe": {"httpGet": {"path": "/version", "port": API}, "periodSeconds": 1},
        },
        {"/tmp": 10001},
        more_ports=(DATABASE, STORE),
    )
    api = f"http://{kube.node_address}:{service['spec']['ports'][0]['nodePort']}"
    for port, upstream in ((DATABASE, database), (STORE, store)):
        proxy = {"name": f"to-{port}", "listen": f"0.0.0.0:{port}", "upstream": upstream}
        requests.post(f"{api}/proxies", json=proxy, timeout=10).raise_for_status()
    host = f"toxiproxy.{kube.namespace}.svc"
    return Way(api, host, DATABASE), Way(api, host, STORE)
