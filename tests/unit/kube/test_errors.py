"""Responses of the API server become errors that describe the failure and contain no values of the request."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import errors
from mlflow_operator.kube.errors import from_response


def status_body(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return json.dumps({**status, "details": details}).encode()


def error(
    code: int, body: bytes, *, secret: bool = False, retry_after: str | None = None
) -> errors.ClusterError:
    return from_response(code, retry_after, body, "apply Deployment ns/a", secret=secret)


QUOTA = 'pods "a" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'
TERMINATING = {
    "causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace", "message": "bye"}]
}
SCHEMA_MISMATCH = (
    "failed to create typed patch object (ns/a; apps/v1, Kind=Deployment): .spec.foo: field not declared"
)


@pytest.mark.parametrize(
    ("code", "body", "error_type"),
    [
        (404, status_body(404, "NotFound"), errors.NotFound),
        (404, b"404 page not found", errors.NotFound),
        (409, status_body(409, "AlreadyExists"), errors.AlreadyExists),
        (409, status_body(409, "Conflict"), errors.Conflict),
        (403, status_body(403, "Forbidden", "no"), errors.Forbidden),
        (403, status_body(403, "Forbidden", QUOTA), errors.QuotaExceeded),
        (403, status_body(403, "Forbidden", "no", **TERMINATING), errors.NamespaceTerminating),
        (422, status_body(422, "Invalid"), errors.Invalid),
        (400, status_body(400, "BadRequest"), errors.Invalid),
        (500, status_body(500, "", SCHEMA_MISMATCH), errors.Invalid),
        (401, status_body(401, "Unauthorized"), errors.Unavailable),
        (410, status_body(410, "Expired"), errors.Unavailable),
        (429, status_body(429, "TooManyRequests"), errors.Unavailable),
        (500, status_body(500, "InternalError"), errors.Unavailable),
        (503, b"<html>upstream connect error</html>", errors.Unavailable),
        (504, b"", errors.Unavailable),
    ],
)
def test_response_is_mapped_to_error_type(
    code: int, body: bytes, error_type: type[errors.ClusterError]
) -> None:
    assert type(error(code, body)) is error_type


def test_already_exists_is_a_conflict() -> None:
    """Both errors mean that the caller must read the object again."""
    assert issubclass(errors.AlreadyExists, errors.Conflict)


def test_quota_error_names_object_and_quota() -> None:
    quota_error = error(403, status_body(403, "Forbidden", QUOTA))
    assert isinstance(quota_error, errors.QuotaExceeded)
    assert quota_error.subject == "Deployment ns/a"
    assert QUOTA in str(quota_error)


def invalid_body(*messages: str) -> bytes:
    causes = [{"reason": "FieldValueInvalid", "field": "spec.x", "message": message} for message in messages]
    return status_body(422, "Invalid", f"Deployment a is invalid: spec.x: {messages[0]}", causes=causes)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ('Invalid value: "hunter2": must be short', "must be short"),
        ('Invalid value: "hun: ter2 \\"hunter2\\": x": must be: short', "must be: short"),
        ('Invalid value: {"password":"hunter2: x"}: must be short', "must be short"),
        ("Invalid value: 31337: must be short", "must be short"),
        ('Unsupported value: "hunter2": supported values: "A", "B"', 'supported values: "A", "B"'),
        ('Duplicate value: "hunter2"', "Duplicate value"),
        ('Invalid value: "hunter2\\q": must be short', "Invalid value"),
        ("Invalid value: hunter2", "Invalid value"),
        ("Required value: name is required", "Required value: name is required"),
        ("Forbidden: is immutable\n  core.Spec{Password: hunter2}", "Forbidden: is immutable"),
    ],
)
def test_rejected_value_is_removed_from_message(message: str, kept: str) -> None:
    text = str(error(422, invalid_body(message)))
    assert kept in text
    assert "spec.x" in text
    assert "hunter2" not in text
    assert "31337" not in text
    plain = str(error(422, status_body(422, "Invalid", message)))
    assert "hunter2" not in plain


@pytest.mark.parametrize("code", [400, 422, 500])
def test_message_for_secret_contains_only_fields_and_reasons(code: int) -> None:
    body = status_body(
        code,
        "Invalid",
        'Secret "a" is invalid: hunter2',
        causes=[{"field": "data[x y]", "reason": "FieldValueInvalid", "message": "hunter2"}],
    )
    assert str(error(code, body, secret=True)).endswith("data[x y]: FieldValueInvalid")


def test_invalid_error_contains_field_paths() -> None:
    caught = error(422, invalid_body("Invalid value: 1: x"))
    assert isinstance(caught, errors.Invalid)
    assert caught.fields == ("spec.x",)


def test_messages_are_deduplicated_and_truncated() -> None:
    text = str(
        error(
            422,
            invalid_body(*["Invalid value: 1: no"] * 9, *(f"Forbidden: {n} {'x' * 99}" for n in range(9))),
        )
    )
    assert text.count("no") == 1
    assert len(text) < errors.MAX_MESSAGE_CHARS + 100


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        (None, 7.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("99999", 300.0),
        ("-1", 0.0),
    ],
)
def test_retry_after_is_read_from_header_or_body(header: str | None, seconds: float | None) -> None:
    caught = error(429, status_body(429, "TooManyRequests", retryAfterSeconds=7), retry_after=header)
    assert isinstance(caught, errors.Unavailable)
    assert caught.retry_after == seconds
