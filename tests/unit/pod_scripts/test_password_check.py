"""Password checks: never stale, and never in the way of other requests."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from mlflow_operator.pod_scripts import password_check
from mlflow_operator.pod_scripts.password_check import PasswordCheck, TooManyPasswordsError


@dataclass
class Account:
    """A row of the table of users."""

    password_hash: str


@dataclass
class Database:
    """Accounts whose hash is `hash of` and the password. Hashing waits for `gate` while it is not set."""

    accounts: dict[str, Account] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    hashed: list[tuple[str | None, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    hashing: threading.Event = field(default_factory=threading.Event)

    def read(self, username: str) -> Account | None:
        assert threading.current_thread() is not threading.main_thread()
        self.reads.append(username)
        return self.accounts.get(username)

    def matches(self, stored_hash: str | None, password: str) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        self.hashed.append((stored_hash, password))
        self.hashing.set()
        self.gate.wait(60)
        return stored_hash == f"hash of {password}"


@pytest.fixture
def database() -> Iterator[Database]:
    """Two users. Hashing does not wait."""
    database = Database({name: Account(f"hash of {name}-password") for name in ("alice", "bob")})
    database.gate.set()
    yield database
    database.gate.set()


@pytest.fixture
def check(database: Database) -> PasswordCheck:
    """The check of this database."""
    created: PasswordCheck = PasswordCheck(database.read, database.matches)
    return created


async def wait_until_hashing(database: Database) -> None:
    """Until the only thread that hashes is blocked."""
    assert await asyncio.to_thread(database.hashing.wait, 60)


async def test_right_password_is_hashed_once(check: PasswordCheck, database: Database) -> None:
    """Each check reads the account, once."""
    for _ in range(3):
        assert await check("alice", "alice-password") is database.accounts["alice"]
    assert database.reads == ["alice"] * 3
    assert len(database.hashed) == 1


async def test_changed_password_is_refused_at_once(check: PasswordCheck, database: Database) -> None:
    assert await check("alice", "alice-password")
    database.accounts["alice"] = Account("hash of another password")
    assert await check("alice", "alice-password") is None
    assert await check("alice", "another password")


async def test_deleted_user_is_refused_at_once(check: PasswordCheck, database: Database) -> None:
    assert await check("alice", "alice-password")
    del database.accounts["alice"]
    assert await check("alice", "alice-password") is None


async def test_password_of_another_user_is_refused(check: PasswordCheck) -> None:
    assert await check("alice", "alice-password")
    assert await check("bob", "alice-password") is None


@pytest.mark.parametrize("username", ["alice", "unknown"])
async def test_wrong_password_costs_the_same_for_an_unknown_user(
    check: PasswordCheck, database: Database, username: str
) -> None:
    """The duration of a response does not reveal which users exist, also not when the request is repeated."""
    for _ in range(2):
        assert await check(username, "wrong") is None
    assert len(database.hashed) == 1
    assert len(database.reads) == 2


async def test_known_password_does_not_wait_for_wrong_ones(check: PasswordCheck, database: Database) -> None:
    """While the thread that hashes is blocked, known users and all code on the event loop go on."""
    assert await check("alice", "alice-password")
    database.gate.clear()
    wrong = [asyncio.create_task(check(f"user {number}", "wrong")) for number in range(50)]
    await wait_until_hashing(database)
    assert await check("alice", "alice-password")
    results = await asyncio.gather(
        *(task for task in wrong if task.done()), asyncio.sleep(0), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, TooManyPasswordsError)]
    assert len(refused) == 50 - password_check.MAX_WAITING
    assert sum(task.done() for task in wrong) == len(refused), "a password that waits has no result yet"
    database.gate.set()
    assert not any(await asyncio.gather(*(task for task in wrong if not task.done())))
    assert await check("bob", "bob-password"), "the queue is empty again"


@pytest.mark.parametrize("target", ["bob", "unknown"])
async def test_guesses_of_one_password_leave_room_for_other_users(
    check: PasswordCheck, database: Database, target: str
) -> None:
    """Whether or not the user exists. Before, users whom a new pod did not know yet could not log in."""
    database.gate.clear()
    guesses = [asyncio.create_task(check(target, f"wrong {number}")) for number in range(50)]
    await wait_until_hashing(database)
    while sum(guess.done() for guess in guesses) < 50 - password_check.MAX_WAITING_OF_USER:
        await asyncio.sleep(0)
    login = asyncio.create_task(check("alice", "alice-password"))
    while len(database.reads) < 51:
        await asyncio.sleep(0)
    database.gate.set()
    assert await login
    results = await asyncio.gather(*guesses, return_exceptions=True)
    refused = [result for result in results if isinstance(result, TooManyPasswordsError)]
    assert len(refused) == 50 - password_check.MAX_WAITING_OF_USER


async def test_same_password_is_hashed_once_for_concurrent_requests(
    check: PasswordCheck, database: Database
) -> None:
    """A new pod gets many requests of each client at once. One that is cancelled does not affect the others."""
    database.gate.clear()
    requests = [asyncio.create_task(check("alice", "alice-password")) for _ in range(50)]
    await wait_until_hashing(database)
    while len(database.reads) < len(requests):
        await asyncio.sleep(0)
    requests.pop(0).cancel()
    database.gate.set()
    assert all(await asyncio.gather(*requests))
    assert len(database.hashed) == 1


async def test_error_is_not_remembered(
    check: PasswordCheck, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash with an unknown method, for example. The request fails, and nothing else."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))

    def fail(stored_hash: str | None, password: str) -> bool:
        raise ValueError("unknown method")

    with monkeypatch.context() as patch:
        patch.setattr(check, "_matches", fail)
        with pytest.raises(ValueError, match="unknown method"):
            await check("alice", "alice-password")
    assert await check("alice", "alice-password")
    assert not errors


async def test_memory_is_bounded_and_wrong_passwords_do_not_displace_right_ones(
    check: PasswordCheck, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await check("alice", "alice-password")
    for number in range(password_check.MAX_REFUSED + 10):
        assert await check("bob", str(number)) is None
    hashed = len(database.hashed)
    assert await check("alice", "alice-password")
    assert await check("bob", str(password_check.MAX_REFUSED)) is None
    assert len(database.hashed) == hashed
    assert await check("bob", "0") is None
    assert len(database.hashed) == hashed + 1, "the oldest result was forgotten"


def test_recent_results_keep_those_that_are_used() -> None:
    results = password_check.RecentResults(2)
    for key in ("a", "b"):
        results.add(key)
    assert "a" in results
    results.add("c")
    assert "a" in results
    assert "b" not in results
