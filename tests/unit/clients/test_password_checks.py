"""Passwords are compared with the hashes of MLflow's own library, each only once, and never at any price."""

import asyncio
import hashlib

import pytest
from werkzeug.security import generate_password_hash

from mlflow_operator.clients import password_checks
from mlflow_operator.clients.password_checks import PasswordChecks, verify

PASSWORD = "pässword with ünicode"
METHODS = ("scrypt", "scrypt:1024:4:2", "pbkdf2", "pbkdf2:sha1:1000")


@pytest.mark.parametrize("method", METHODS)
def test_hashes_of_werkzeug_are_verified(method: str) -> None:
    """MLflow hashes passwords with it. The first one is its default."""
    stored = generate_password_hash(PASSWORD, method=method)
    assert verify(stored, PASSWORD) is True
    assert verify(stored, f"{PASSWORD} ") is False


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        "argon2id$salt$00",
        "scrypt:a:b:c$salt$00",
        "scrypt:1024$salt$00",
        "scrypt:1000:8:1$salt$00",
        "scrypt:-2:8:1$salt$00",
        "scrypt:0:8:1$salt$00",
        "pbkdf2:unknown:1000$salt$00",
        "pbkdf2:sha256:0$salt$00",
    ],
)
def test_unknown_format_is_neither_right_nor_wrong(stored: str) -> None:
    """A later version of MLflow may use another one."""
    assert verify(stored, PASSWORD) is None


@pytest.mark.parametrize(
    "method",
    ["scrypt:65536:8:1", "scrypt:32768:16:1", "scrypt:2:8:9999", "pbkdf2:sha256:9999999", "scrypt:2:1:99"],
)
def test_expensive_hash_is_not_computed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the database chooses it."""

    def fail(*_: object, **__: object) -> bytes:
        raise AssertionError("computed")

    monkeypatch.setattr(hashlib, "scrypt", fail)
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", fail)
    assert verify(f"{method}$salt$00", PASSWORD) is None


async def test_result_is_remembered_for_exactly_this_hash_and_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wrong ones, too: a reconcile that waits for a Job repeats the comparison."""
    calls = []

    def count(stored: str, password: str) -> bool:
        calls.append((stored, password))
        return password == "right"

    monkeypatch.setattr(password_checks, "verify", count)
    checks = PasswordChecks()
    for _ in range(3):
        assert await checks.matches("one", "right") is True
        assert await checks.matches("one", "wrong") is False
        assert await checks.matches("two", "right") is True
        assert await checks.matches("on", "eright") is False
    assert len(calls) == 4


async def test_concurrent_checks_of_the_same_password_are_one_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one waits for the thread, and then finds the result of the first."""
    calls = []

    def count(stored: str, password: str) -> bool:
        calls.append((stored, password))
        return True

    monkeypatch.setattr(password_checks, "verify", count)
    checks = PasswordChecks()
    assert await asyncio.gather(*(checks.matches("one", "right") for _ in range(3))) == [True] * 3
    assert len(calls) == 1


async def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest result is forgotten first. Neither hashes nor passwords are kept."""
    monkeypatch.setattr(password_checks, "_MAX_REMEMBERED", 2)
    monkeypatch.setattr(password_checks, "verify", lambda *_: True)
    checks = PasswordChecks()
    for number in range(5):
        assert await checks.matches(f"hash-{number}", "hunter2")
    remembered = str(vars(checks))
    assert remembered.count("True") == 2
    assert "hash-" not in remembered
    assert "hunter2" not in remembered
