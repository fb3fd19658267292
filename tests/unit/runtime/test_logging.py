"""Logs that machines read: one object a line, about one MLflowServer, and nothing nobody asked for."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mlflow_operator.runtime import logging as logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.setup(stream=stream)
    yield stream
    root.handlers[:], root.level = before


def last(lines: io.StringIO) -> dict[str, Any]:
    text = lines.getvalue().splitlines()
    assert len(text) == 1
    found: dict[str, Any] = json.loads(text[0])
    return found


def test_a_line_is_an_object_with_the_promised_fields(lines: io.StringIO) -> None:
    with logs.about("ns", "a"):
        logging.getLogger("x").info("created %s", "Deployment")
    line = last(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "x",
        "message": "created Deployment",
        "namespace": "ns",
        "name": "a",
    }


def test_a_traceback_stays_in_one_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("oh\nno")
    except ValueError:
        logging.getLogger("x").exception("failed")
    line = last(lines)
    assert line["message"] == "failed"
    assert "ValueError: oh\nno" in line["traceback"]


def test_nothing_a_library_adds_gets_out(lines: io.StringIO) -> None:
    """kopf adds its settings to records, botocore what it sends."""
    logging.getLogger("x").warning("hm", extra={"settings": "s3cret", "headers": {"Authorization": "s3cret"}})
    assert "s3cret" not in lines.getvalue()


def test_a_record_of_kopf_is_about_the_object_it_names(lines: io.StringIO) -> None:
    logging.getLogger("x").warning("hm", extra={"k8s_ref": {"namespace": "ns", "name": "b"}})
    assert (last(lines)["namespace"], last(lines)["name"]) == ("ns", "b")


async def test_two_reconciles_at_a_time_do_not_mix(lines: io.StringIO) -> None:
    async def reconcile(name: str) -> None:
        with logs.about("ns", name):
            await asyncio.sleep(0)
            await asyncio.gather(asyncio.sleep(0), tell(name))

    async def tell(name: str) -> None:
        logging.getLogger("x").info("%s", name)

    await asyncio.gather(*(reconcile(name) for name in "abc"))
    logging.getLogger("x").info("nobody")
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert all(line["name"] == line["message"] for line in told[:3])
    assert "name" not in told[3]


@pytest.mark.parametrize(
    "name", ["kopf.objects", "botocore.auth", "aiohttp.access", "kubernetes.client.rest"]
)
def test_libraries_are_quiet_unless_something_is_wrong(lines: io.StringIO, name: str) -> None:
    logging.getLogger(name).info("one of a thousand")
    assert not lines.getvalue()
    logging.getLogger(name).warning("listen")
    assert last(lines)["message"] == "listen"


def test_a_request_of_kopf_that_failed_is_trouble_and_no_fault(lines: io.StringIO) -> None:
    """An API server that restarts must not look like a bug of the operator's, traceback and all."""
    try:
        raise ConnectionRefusedError("no")
    except ConnectionRefusedError:
        logging.getLogger("kopf._cogs.clients.watching").exception("Request attempt #1 failed; will retry")
    line = last(lines)
    assert line["level"] == "WARNING"
    assert "traceback" not in line


def test_an_error_of_a_handler_stays_one(lines: io.StringIO) -> None:
    """Handlers are the operator's own."""
    logging.getLogger("kopf.objects").error("Handler failed")
    assert last(lines)["level"] == "ERROR"


def test_debug_does_not_open_the_libraries_either(lines: io.StringIO) -> None:
    logs.setup("DEBUG", stream=lines)
    logging.getLogger("botocore.auth").debug("StringToSign: ...")
    logging.getLogger("mlflow_operator").debug("skipped")
    assert last(lines)["message"] == "skipped"


def test_text_for_a_terminal_says_the_same(lines: io.StringIO) -> None:
    logs.setup(plain=True, stream=lines)
    with logs.about("ns", "a"):
        logging.getLogger("x").info("created")
    assert lines.getvalue().strip().endswith("INFO    ns/a created")
