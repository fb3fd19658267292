"""CA certificates as files. libpq and OpenSSL read trusted certificates only from disk."""

import asyncio
import hashlib
import tempfile
from pathlib import Path


def _write_file(pem: str) -> str:
    digest = hashlib.sha256(pem.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "mlflow-operator-trust"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{digest}.crt"
    if not path.exists():
        # A unique name: the database and the artifact store often share a CA, and both are checked at the same time.
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as temporary:
            temporary.write(pem)
        Path(temporary.name).rename(path)
    return str(path)


async def path_of(pem: str | None) -> str | None:
    """Write `pem` (certificates, no keys) to a file named after its hash and return its path. None for None."""
    return await asyncio.to_thread(_write_file, pem) if pem else None
