"""How a program finds the API server that a test plays."""

from pathlib import Path


def kubeconfig(folder: Path, port: int) -> Path:
    """For a server on this machine."""
    path = folder / "kubeconfig"
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
