"""CA certificates as files. libpq and OpenSSL read trusted certificates only from disk."""

import asyncio
import hashlib
import tempfile
from pathlib import Path

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

MAX_CERTIFICATES = 300
"""Maximum number of certificates in a file. The public CAs are 150. OpenSSL needs quadratic time for certificates with
the same subject: half a second for the 2400 that fit into a Secret, for each connection to a Postgres."""
MAX_TOTAL_BYTES = 16 * 1024 * 1024
"""Maximum size of all files. /tmp of the operator is limited to 64 MiB, and its pod is evicted if it is full."""


def _delete_least_recently_used(folder: Path) -> None:
    """Delete files until the others fit into MAX_TOTAL_BYTES. A connection that needs one of them is retried."""
    total = 0
    for path, status in sorted(
        ((path, path.stat()) for path in folder.glob("*.crt")),
        key=lambda file: file[1].st_mtime_ns,
        reverse=True,
    ):
        total += status.st_size
        if total > MAX_TOTAL_BYTES:
            path.unlink(missing_ok=True)


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
        _delete_least_recently_used(folder)
    path.touch()
    return str(path)


async def path_of(pem: str | None) -> str | None:
    """Write `pem` (certificates, no keys) to a file named after its hash and return its path. None for None.

    Raises ConfigurationError for more than MAX_CERTIFICATES.
    """
    if not pem:
        return None
    if pem.count("-----BEGIN ") > MAX_CERTIFICATES:
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f"A Secret that tls.caSecretRef references contains more than {MAX_CERTIFICATES} certificates. Keep only "
            "those of the CAs that issue the certificates of the database and the artifact store.",
        )
    return await asyncio.to_thread(_write_file, pem)
