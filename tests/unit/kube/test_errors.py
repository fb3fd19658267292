"""Answers of the API server become errors that say enough, and nothing that was sent."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import errors
from mlflow_operator.kube.errors import from_response


def answer(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
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
UNFIT = "failed to create typed patch object (ns/a; apps/v1, Kind=Deployment): .spec.foo: field not declared"


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (404, answer(404, "NotFound"), errors.NotFound),
        (404, b"404 page not found", errors.NotFound),
        (409, answer(409, "AlreadyExists"), errors.AlreadyExists),
        (409, answer(409, "Conflict"), errors.Conflict),
        (403, answer(403, "Forbidden", "no"), errors.Forbidden),
        (403, answer(403, "Forbidden", QUOTA), errors.QuotaExceeded),
        (403, answer(403, "Forbidden", "no", **TERMINATING), errors.NamespaceTerminating),
        (422, answer(422, "Invalid"), errors.Invalid),
        (400, answer(400, "BadRequest"), errors.Invalid),
        (500, answer(500, "", UNFIT), errors.Invalid),
        (401, answer(401, "Unauthorized"), errors.Unavailable),
        (410, answer(410, "Expired"), errors.Unavailable),
        (429, answer(429, "TooManyRequests"), errors.Unavailable),
        (500, answer(500, "InternalError"), errors.Unavailable),
        (503, b"<html>upstream connect error</html>", errors.Unavailable),
        (504, b"", errors.Unavailable),
    ],
)
def test_each_answer_means_one_error(code: int, body: bytes, kind: type[errors.ClusterError]) -> None:
    assert type(error(code, body)) is kind


def test_an_object_that_exists_is_a_conflict_like_any_other() -> None:
    """Both mean: it is not as you read it. Who has no better idea reads again."""
    assert issubclass(errors.AlreadyExists, errors.Conflict)


def test_the_quotas_own_sentence_is_kept() -> None:
    assert QUOTA in str(error(403, answer(403, "Forbidden", QUOTA)))


def refused(*messages: str) -> bytes:
    causes = [{"reason": "FieldValueInvalid", "field": "spec.x", "message": message} for message in messages]
    return answer(422, "Invalid", f"Deployment a is invalid: spec.x: {messages[0]}", causes=causes)


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
def test_a_refused_value_is_not_repeated(message: str, kept: str) -> None:
    text = str(error(422, refused(message)))
    assert kept in text
    assert "spec.x" in text
    assert "hunter2" not in text
    assert "31337" not in text
    plain = str(error(422, answer(422, "Invalid", message)))
    assert "hunter2" not in plain


@pytest.mark.parametrize("code", [400, 422, 500])
def test_of_a_secret_only_fields_and_reasons_are_told(code: int) -> None:
    body = answer(
        code,
        "Invalid",
        'Secret "a" is invalid: hunter2',
        causes=[{"field": "data[x y]", "reason": "FieldValueInvalid", "message": "hunter2"}],
    )
    assert str(error(code, body, secret=True)).endswith("data[x y]: FieldValueInvalid")


def test_the_fields_complained_of_can_be_asked_for() -> None:
    found = error(422, refused("Invalid value: 1: x"))
    assert isinstance(found, errors.Invalid)
    assert found.fields == ("spec.x",)


def test_texts_are_cut_and_said_once() -> None:
    text = str(
        error(422, refused(*["Invalid value: 1: no"] * 9, *(f"Forbidden: {n} {'x' * 99}" for n in range(9))))
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
def test_the_time_to_wait_is_read_from_header_or_answer(header: str | None, seconds: float | None) -> None:
    found = error(429, answer(429, "TooManyRequests", retryAfterSeconds=7), retry_after=header)
    assert isinstance(found, errors.Unavailable)
    assert found.retry_after == seconds
