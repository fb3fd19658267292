"""A Toxiproxy between servers and their stores: proxies that pass data, delay it, drop it, or reset connections."""

from dataclasses import dataclass
from typing import Any

import requests

from tests.e2e.external_stores import start_pod
from tests.e2e.kube import Kube

API, DATABASE, STORE = 8474, 5432, 9000


@dataclass(frozen=True)
class Proxy:
    """One proxy of the Toxiproxy. `host` and `port`: its address in the cluster; `api`: URL of the HTTP API."""

    api: str
    host: str
    port: int

    def add_latency(self, milliseconds: int) -> None:
        """Delay responses (toxic `latency`)."""
        self._set_toxic("latency", latency=milliseconds)

    def drop_data(self) -> None:
        """Accept connections and pass no data (toxic `timeout`), as if a host vanished or a firewall lost its state."""
        self._set_toxic("timeout", timeout=0)

    def reset_connections(self) -> None:
        """Reset every connection as soon as the store responds (toxic `reset_peer`)."""
        self._set_toxic("reset_peer", timeout=0)

    def remove_toxics(self) -> None:
        """Pass all data again; closes the connections on which data was dropped."""
        for toxic in self._request("GET", ""):
            self._request("DELETE", f"/{toxic['name']}")

    def _set_toxic(self, toxic: str, **attributes: int) -> None:
        self.remove_toxics()
        self._request(
            "POST", "", {"name": toxic, "type": toxic, "stream": "downstream", "attributes": attributes}
        )

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self.api}/proxies/to-{self.port}/toxics{path}"
        response = requests.request(method, url, json=body, timeout=10)
        assert response.ok, response.text
        return response.json() if response.content else None


def start(kube: Kube, database: str, store: str) -> tuple[Proxy, Proxy]:
    """Start a Toxiproxy; returns its proxies to the database and to the store, given as `host:port` in the cluster."""
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
    return Proxy(api, host, DATABASE), Proxy(api, host, STORE)
