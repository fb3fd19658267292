"""etcd and kube-apiserver on 127.0.0.1, with their data in a temporary directory.

There is no kube-controller-manager: no service accounts and tokens are created, owned objects are not garbage
collected, and a deleted namespace stays in the phase Terminating.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path

import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.apiserver.client import Client
from tests.apiserver.processes import Process, find, free_port

ADMIN_GROUP = "system:masters"
SERVICE_CLUSTER_IP_RANGE = "10.96.0.0/16"


class ControlPlane:
    """A running API server. `stop` must be called at the end.

    `kubeconfig` and `client` have all permissions. `etcd` and `apiserver` are the processes.
    """

    def __init__(self, folder: Path, disabled_admission: Iterable[str] = ("ServiceAccount",)) -> None:
        """Start both programs and wait until the API server is ready.

        The admission plugin ServiceAccount rejects every pod whose service account does not exist. Without a
        kube-controller-manager that is every pod, so the plugin is disabled by default.
        """
        self._folder = folder
        self._disabled_admission = tuple(disabled_admission)
        self._etcd_port, self._port = free_port(), free_port()
        self._tokens = folder / "tokens.csv"
        self.service_account_key = folder / "service-account.key"
        self.audit_log = folder / "audit.log"
        self.url = f"https://127.0.0.1:{self._port}"
        self.ca = folder / "certificates" / "apiserver.crt"
        token = secrets.token_hex(16)
        self._tokens.write_text(f"{token},admin,admin,{ADMIN_GROUP}\n")
        self.service_account_key.write_bytes(_private_key())
        self._audit_policy = folder / "audit-policy.yaml"
        self._audit_policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        self.kubeconfig = self.write_kubeconfig(folder / "kubeconfig", token)
        self.etcd = self._start_etcd()
        self.apiserver = self._start_apiserver()
        self.client = Client(self.url, token, str(self.ca))

    def write_kubeconfig(self, path: Path, token: str) -> Path:
        """Write a kubeconfig for a user with this bearer token; returns its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def client_for(self, token: str) -> Client:
        """Return a client for another user."""
        return Client(self.url, token, str(self.ca))

    def restart_apiserver(self) -> None:
        """Kill kube-apiserver with SIGKILL, start it again on the same port and wait until it is ready."""
        self.apiserver.kill()
        self.apiserver = self._start_apiserver()

    def stop(self) -> None:
        """Stop both programs."""
        self.client.close()
        # SIGKILL: the data is temporary, and a graceful shutdown waits for open watches.
        for process in (self.apiserver, self.etcd):
            process.kill()

    def _start_etcd(self) -> Process:
        client_url, peer_url = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{free_port()}"
        argv = [
            find("etcd"),
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            # The data does not outlive the tests.
            "--unsafe-no-fsync",
        ]
        return Process("etcd", argv, self._folder / "etcd.log")

    def _start_apiserver(self) -> Process:
        argv = [
            find("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self.ca.parent}",
            f"--service-cluster-ip-range={SERVICE_CLUSTER_IP_RANGE}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.service_account_key}",
            f"--service-account-signing-key-file={self.service_account_key}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=RBAC",
            f"--audit-policy-file={self._audit_policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",
            "--profiling=false",
        ]
        if self._disabled_admission:
            argv.append(f"--disable-admission-plugins={','.join(self._disabled_admission)}")
        process = Process("kube-apiserver", argv, self._folder / "kube-apiserver.log")
        process.wait_until_ready(self._is_ready)
        return process

    def _is_ready(self) -> bool:
        if not self.ca.exists():
            return False
        try:
            return requests.get(f"{self.url}/readyz", verify=str(self.ca), timeout=5).ok
        except (requests.RequestException, OSError):
            return False


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}
"""Every write except those to Leases, without bodies."""


def _private_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
