"""Certificates of private authorities as files: both libpq and OpenSSL read them only from disk."""

import asyncio
import hashlib
import tempfile
from pathlib import Path


def _store(pem: str) -> str:
    digest = hashlib.sha256(pem.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "mlflow-operator-trust"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{digest}.crt"
    if not path.exists():
        # a name of its own: database and artifact store, often under one authority, are looked at at the same time
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as half:
            half.write(pem)
        Path(half.name).rename(path)
    return str(path)


async def path_of(pem: str | None) -> str | None:
    """A file that holds `pem` (certificates, no keys), named by its content; None for None."""
    return await asyncio.to_thread(_store, pem) if pem else None
