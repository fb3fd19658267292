"""Kubeconfig for an API server that a test runs."""

from pathlib import Path


def write_kubeconfig(directory: Path, port: int) -> Path:
    """Write a kubeconfig for an API server on this machine."""
    path = directory / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: test, user: {{token: the-token}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
"""
    )
    return path
