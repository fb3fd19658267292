"""Check passwords without delaying other requests, and without accepting a password that has been changed.

Each check reads the stored hash. A password that matched this stored hash before is accepted at once: its HMAC, whose
key contains the stored hash, is remembered. So a changed password and a deleted user are refused by all pods at the
next request. Other passwords are hashed, which takes 50 to 100 ms of CPU time on purpose. One thread per process does
that, and a limited number of passwords, in total and for each username, wait for it.
"""

import asyncio
import hmac
import secrets
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

MAX_WAITING = 16
"""Different passwords that are hashed or wait for it. Further ones are refused until one is done."""
MAX_WAITING_OF_USER = 4
"""The same for one username: guesses of one user's password leave room for the others."""
MAX_ACCEPTED, MAX_REFUSED = 4096, 1024
"""Remembered results. An attacker can fill only the memory of refused passwords."""
READERS = 4
"""Threads that read stored hashes. Each needs a connection to the database for about a millisecond."""


class TooManyPasswordsError(Exception):
    """MAX_WAITING passwords are being checked, or MAX_WAITING_OF_USER of the same user."""


class RecentResults:
    """Remembers the `size` keys that were used last."""

    def __init__(self, size):
        self._keys, self._size = OrderedDict(), size

    def __contains__(self, key):
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def add(self, key):
        self._keys[key] = None
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)


class PasswordCheck:
    """Coroutine function that returns the account of a user if the password is right, else None.

    `read` returns the account of a username, or None. It is called once for each check, in a thread. An account has a
    `password_hash`. `matches` compares a stored hash with a password; for an unknown user, the stored hash is None, and
    it must take about as long, because its duration would otherwise reveal which users exist. All other code runs on
    the event loop and needs no locks.
    """

    def __init__(self, read, matches):
        self._read, self._matches = read, matches
        self._readers = ThreadPoolExecutor(READERS, "accounts")
        self._hasher = ThreadPoolExecutor(1, "passwords")
        self._secret = secrets.token_bytes(32)
        self._accepted, self._refused = RecentResults(MAX_ACCEPTED), RecentResults(MAX_REFUSED)
        self._running = {}

    async def __call__(self, username, password):
        loop = asyncio.get_running_loop()
        account = await loop.run_in_executor(self._readers, self._read, username)
        stored_hash = account.password_hash if account else None
        # for an unknown user too: otherwise the same wrong password would be refused faster if the user exists
        key = hmac.digest(
            self._secret + (stored_hash or f"\0{username}").encode(), password.encode(), "sha256"
        )
        if key in self._accepted:
            return account
        if key in self._refused:
            return None
        # shield: the result is also for other requests with the same password, which wait for the same future
        return (
            account if await asyncio.shield(self._hash(loop, key, username, stored_hash, password)) else None
        )

    def _hash(self, loop, key, username, stored_hash, password):
        if key not in self._running:
            of_user = sum(name == username for name, _ in self._running.values())
            if len(self._running) >= MAX_WAITING or of_user >= MAX_WAITING_OF_USER:
                raise TooManyPasswordsError
            future = loop.run_in_executor(self._hasher, self._matches, stored_hash, password)
            future.add_done_callback(lambda done: self._remember(key, done))
            self._running[key] = username, future
        return self._running[key][1]

    def _remember(self, key, future):
        del self._running[key]
        if future.cancelled() or future.exception():
            return
        (self._accepted if future.result() else self._refused).add(key)
