"""Log output: one JSON object per line, attributed to one MLflowServer, without fields added by libraries."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from kopf._cogs.clients import api as kopf_api

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
    logged = lines.getvalue().splitlines()
    assert len(logged) == 1
    record: dict[str, Any] = json.loads(logged[0])
    return record


def test_log_line_is_a_json_object_with_the_documented_fields(lines: io.StringIO) -> None:
    with logs.resource_context("ns", "a"):
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


def test_log_line_of_a_platform_has_no_namespace(lines: io.StringIO) -> None:
    with logs.resource_context("", "shared"):
        logging.getLogger("x").info("checked")
    line = last(lines)
    assert line["name"] == "shared"
    assert "namespace" not in line


def test_traceback_is_part_of_the_json_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("oh\nno")
    except ValueError:
        logging.getLogger("x").exception("failed")
    line = last(lines)
    assert line["message"] == "failed"
    assert "ValueError: oh\nno" in line["traceback"]


def test_extra_fields_of_libraries_are_not_logged(lines: io.StringIO) -> None:
    """kopf adds its settings to records, botocore its requests."""
    logging.getLogger("x").warning("hm", extra={"settings": "s3cret", "headers": {"Authorization": "s3cret"}})
    assert "s3cret" not in lines.getvalue()


def test_kopf_record_is_attributed_to_its_object(lines: io.StringIO) -> None:
    logging.getLogger("x").warning("hm", extra={"k8s_ref": {"namespace": "ns", "name": "b"}})
    assert (last(lines)["namespace"], last(lines)["name"]) == ("ns", "b")


async def test_concurrent_reconciles_are_attributed_to_their_own_servers(lines: io.StringIO) -> None:
    async def reconcile(name: str) -> None:
        with logs.resource_context("ns", name):
            await asyncio.sleep(0)
            await asyncio.gather(asyncio.sleep(0), log(name))

    async def log(name: str) -> None:
        logging.getLogger("x").info("%s", name)

    await asyncio.gather(*(reconcile(name) for name in "abc"))
    logging.getLogger("x").info("no server")
    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert all(record["name"] == record["message"] for record in records[:3])
    assert "name" not in records[3]


@pytest.mark.parametrize(
    "name", ["kopf.objects", "botocore.auth", "aiohttp.access", "kubernetes.client.rest"]
)
def test_libraries_log_warnings_only(lines: io.StringIO, name: str) -> None:
    logging.getLogger(name).info("one of a thousand")
    assert not lines.getvalue()
    logging.getLogger(name).warning("listen")
    assert last(lines)["message"] == "listen"


def test_failed_kopf_request_is_a_warning_without_traceback(lines: io.StringIO) -> None:
    """A restart of the API server must not look like a bug of the operator."""
    try:
        raise ConnectionRefusedError("no")
    except ConnectionRefusedError:
        logging.getLogger("kopf._cogs.clients.watching").exception("Request attempt #1 failed; will retry")
    line = last(lines)
    assert line["level"] == "WARNING"
    assert "traceback" not in line


async def test_watch_that_ends_during_a_slow_request_is_a_warning(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback with which kopf cancels the request fails. It is that of the installed version."""

    async def wait_for_a_response(**_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(kopf_api, "request", wait_for_a_response)
    stopper = asyncio.get_running_loop().create_future()
    watch = kopf_api.stream("/", settings=Mock(), stopper=stopper, logger=Mock())
    request = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    stopper.set_result(None)
    await asyncio.sleep(0)
    request.cancel()
    with suppress(StopAsyncIteration):
        await request
    line = last(lines)
    assert line["level"] == "WARNING"
    assert "request_cancel_callback" in line["message"]
    assert "traceback" not in line


def test_error_of_a_kopf_handler_stays_an_error(lines: io.StringIO) -> None:
    """Handlers are operator code."""
    logging.getLogger("kopf.objects").error("Handler failed")
    assert last(lines)["level"] == "ERROR"


def test_log_level_debug_does_not_apply_to_libraries(lines: io.StringIO) -> None:
    logs.setup("DEBUG", stream=lines)
    logging.getLogger("botocore.auth").debug("StringToSign: ...")
    logging.getLogger("mlflow_operator").debug("skipped")
    assert last(lines)["message"] == "skipped"


def test_text_format_has_level_server_and_message(lines: io.StringIO) -> None:
    logs.setup(text=True, stream=lines)
    with logs.resource_context("ns", "a"):
        logging.getLogger("x").info("created")
    assert lines.getvalue().strip().endswith("INFO    ns/a created")
