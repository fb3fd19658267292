"""CA certificates as files. libpq and OpenSSL read trusted certificates only from disk."""

import asyncio
import hashlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow_operator.clients import limits
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

MAX_CERTIFICATES = 300
"""Maximum number of certificates in a file. The public CAs are 150. OpenSSL needs quadratic time for certificates with
the same subject: half a second for the 2400 that fit into a Secret, for each connection to a Postgres."""
MAX_TOTAL_BYTES = 16 * 1024 * 1024
"""Maximum size of all files. /tmp of the operator is limited to 64 MiB, and its pod is evicted if it is full."""
MAX_NAMESPACE_BYTES = 4 * 1024 * 1024
"""Maximum size of the files that the servers of a namespace use."""
IN_USE_SECONDS = 300
"""Time after which a file counts as unused. Each reconcile uses its files, once a minute without changes."""
_BLOCK_BYTES = 4096
"""Space that a small file needs on disk."""


@dataclass(frozen=True)
class _Use:
    """Last use of a file by a namespace. `time` is in seconds of the monotonic clock."""

    time: float
    size: int


class CAFiles:
    """Writes CA certificates to files, and shares the space between the namespaces. The operator has one instance."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._uses: dict[tuple[str, str], _Use] = {}  # The key is a namespace and the name of a file.

    async def path_of(self, pem: str | None) -> str | None:
        """Write `pem` (certificates, no keys) to a file named after its hash and return its path. None for None.

        The file counts for the namespace of `limits.on_behalf_of`. Servers with the same certificates share it.
        Raises ConfigurationError for more than MAX_CERTIFICATES or MAX_NAMESPACE_BYTES.
        """
        if not pem:
            return None
        if pem.count("-----BEGIN ") > MAX_CERTIFICATES:
            raise ConfigurationError(
                Reason.SECRET_VALUE_INVALID,
                f"A Secret that tls.caSecretRef references contains more than {MAX_CERTIFICATES} certificates. Keep "
                "only those of the CAs that issue the certificates of the database and the artifact store.",
            )
        return await asyncio.to_thread(self._write, pem, limits.current_namespace())

    def _write(self, pem: str, namespace: str) -> str:
        content = pem.encode()
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.crt"
        folder = Path(tempfile.gettempdir()) / "mlflow-operator-trust"
        path = folder / name
        with self._lock:
            self._record_use(namespace, name, max(len(content), _BLOCK_BYTES))
            folder.mkdir(mode=0o700, exist_ok=True)
            if not path.exists():
                # Never an incomplete file under this name, even if the process is killed.
                with tempfile.NamedTemporaryFile("wb", dir=folder, delete=False) as temporary:
                    temporary.write(content)
                Path(temporary.name).rename(path)
                self._delete_excess_files(folder, name)
        return str(path)

    def _record_use(self, namespace: str, name: str, size: int) -> None:
        """Record the use of a file. Raise ConfigurationError for a new one if the namespace already uses too many."""
        now, key = self._now(), (namespace, name)
        in_use = {
            used: use.size
            for used, use in self._uses.items()
            if used[0] == namespace and now - use.time < IN_USE_SECONDS
        }
        if key not in in_use and sum(in_use.values()) + size > MAX_NAMESPACE_BYTES:
            raise ConfigurationError(
                Reason.SECRET_VALUE_INVALID,
                "The CA certificates of the servers in this namespace, in the Secrets that tls.caSecretRef references, "
                f"are larger than {MAX_NAMESPACE_BYTES // 1024**2} MiB together, so the operator does not use those of "
                "this server. Keep only the certificates of the CAs that issue those of the databases and the "
                "artifact stores, or use the same certificates for several servers.",
            )
        self._uses[key] = _Use(now, size)

    def _delete_excess_files(self, folder: Path, written: str) -> None:
        """Delete files, except `written`, until the others fit into MAX_TOTAL_BYTES.

        The namespace with the largest files gives way, and of its files the least recently used one. A connection that
        needs it is retried. Files without a use are those of a previous process.
        """
        sizes = {path.name: max(path.stat().st_size, _BLOCK_BYTES) for path in folder.glob("*.crt")}
        while sum(sizes.values()) > MAX_TOTAL_BYTES:
            unused = sizes.keys() - {name for _, name in self._uses}
            if unused:
                name = unused.pop()
                (folder / name).unlink(missing_ok=True)
                del sizes[name]
                continue
            totals = Counter[str]()
            for (namespace, _), use in self._uses.items():
                totals[namespace] += use.size
            candidates = [key for key in self._uses if key[1] != written]
            if not candidates:
                return
            del self._uses[min(candidates, key=lambda key: (-totals[key[0]], self._uses[key].time))]
