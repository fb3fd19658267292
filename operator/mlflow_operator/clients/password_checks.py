"""Compare a password with the hash that MLflow stores of it.

A comparison takes about 0.1 s of CPU time and 32 MiB of memory. Therefore only one runs at a time, in a thread, and its
result is remembered: a reconcile at rest compares nothing.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict

_MAX_REMEMBERED = 10_000
"""Maximum number of results. Each needs about 200 bytes."""

_MAX_SCRYPT_BYTES, _MAX_SCRYPT_PARALLELISM, _MAX_PBKDF2_ITERATIONS = 32 * 2**20, 4, 2_000_000
"""Enough for MLflow's hashes. The owner of a database chooses the hash in it, which must not use up the operator's
memory or CPU time."""


class PasswordChecks:
    """Compares passwords with hashes, and remembers the results. The operator has one instance."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._results: OrderedDict[bytes, bool | None] = OrderedDict()
        self._lock = asyncio.Lock()

    async def matches(self, stored_hash: str, password: str) -> bool | None:
        """Whether `stored_hash` is a hash of `password`; None if its format is unknown or its computation too large."""
        # Of both: a changed password or hash is compared again. Neither is kept in memory.
        inputs = f"{len(stored_hash)}:{stored_hash}{password}"
        remembered = hmac.digest(self._key, inputs.encode(errors="surrogateescape"), "sha256")
        if remembered not in self._results:
            async with self._lock:
                # Another reconcile may have compared the same while this one waited.
                if remembered not in self._results:
                    self._results[remembered] = await asyncio.to_thread(verify, stored_hash, password)
        self._results.move_to_end(remembered)
        result = self._results[remembered]
        while len(self._results) > _MAX_REMEMBERED:
            self._results.popitem(last=False)
        return result


def verify(stored_hash: str, password: str) -> bool | None:
    """Like `PasswordChecks.matches`, and remembers nothing.

    The format is `scrypt:N:r:p$salt$hex` or `pbkdf2:digest:iterations$salt$hex`.
    """
    method, _, rest = stored_hash.partition("$")
    salt, _, expected = rest.partition("$")
    try:
        computed = _compute(method.split(":"), salt.encode(), password.encode())
    except (ValueError, OverflowError):
        return None
    return None if computed is None else hmac.compare_digest(computed.encode(), expected.encode())


def _compute(method: list[str], salt: bytes, password: bytes) -> str | None:
    match method:
        case ["scrypt", *numbers] if len(numbers) == 3:
            n, r, p = map(int, numbers)
            if min(n, r, p) < 1 or 128 * n * r > _MAX_SCRYPT_BYTES or p > _MAX_SCRYPT_PARALLELISM:
                return None
            max_memory = 2 * _MAX_SCRYPT_BYTES
            return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=max_memory).hex()
        case ["pbkdf2", digest, iterations]:
            if not 1 <= int(iterations) <= _MAX_PBKDF2_ITERATIONS:
                return None
            return hashlib.pbkdf2_hmac(digest, password, salt, int(iterations)).hex()
    return None
