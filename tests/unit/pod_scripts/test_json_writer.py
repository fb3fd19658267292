"""The JSON writer and MLflow's own function produce the same content for random responses."""

import math
import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.protos import model_registry_pb2, service_pb2
from mlflow.utils.proto_json_utils import message_to_json

from mlflow_operator.pod_scripts import json_writer

MAX_DEPTH = 5
FLOATS = (0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, math.nan, math.inf, -math.inf)
STRINGS = ("", "a", 'q"\\\n\x00', "Zoë \u2028 \U0001f600", "x" * 300)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 0, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 0, 2**53 + 1, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def response_types() -> Iterator[type[Message]]:
    """All message types named Response."""
    for module in (service_pb2, model_registry_pb2):
        for name in module.DESCRIPTOR.message_types_by_name:
            if response := getattr(getattr(module, name), "Response", None):
                yield response


def fill(message: Any, rng: random.Random, depth: int = MAX_DEPTH) -> None:
    """Set random fields to random values."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.3 or (field.message_type and not depth):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                key_field = field.message_type.fields_by_name["key"]
                getattr(message, field.name)[scalar(key_field, rng)] = scalar(
                    field.message_type.fields_by_name["value"], rng
                )
        elif field.message_type and field.message_type.file.package == "google.protobuf":
            # some of protobuf's message types cannot be serialized with random values
            if field.message_type.name in {"Timestamp", "Duration"} and not field.is_repeated:
                getattr(message, field.name).seconds = 7
        elif field.message_type:
            value = getattr(message, field.name)
            items = [value.add() for _ in range(rng.randrange(3))] if field.is_repeated else [value]
            for item in items:
                item.SetInParent()
                fill(item, rng, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(scalar(field, rng) for _ in range(rng.randrange(4)))
        else:
            setattr(message, field.name, scalar(field, rng))


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    """A value of the field's type, often an edge case."""
    if field.enum_type:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in INTEGERS:
        return rng.choice(INTEGERS[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(STRINGS)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    return rng.choice(FLOATS)


RESPONSE_TYPES = list(response_types())
write = json_writer.writer(message_to_json)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_output_equals_mlflow_output(seed: int) -> None:
    """Including non-finite numbers, 64-bit integers, empty and unset fields."""
    rng = random.Random(seed)  # noqa: S311
    for response_type in RESPONSE_TYPES:
        message = response_type()
        fill(message, rng)
        assert write(message) in {message_to_json(message, pretty=False), message_to_json(message)}


def test_search_response_does_not_use_fallback() -> None:
    """Search responses are the most frequent ones."""
    response = service_pb2.SearchRuns.Response()
    for _ in range(3):
        fill(response.runs.add(), random.Random(1), 3)  # noqa: S311

    def unexpected_fallback(_: Message) -> str:
        raise AssertionError

    assert json_writer.writer(unexpected_fallback)(response) == message_to_json(response, pretty=False)


def test_unsupported_message_and_options_use_fallback() -> None:
    """MLflow's own function serializes both."""
    unsupported = Struct()
    unsupported["a"] = 1
    assert write(unsupported) == message_to_json(unsupported)
    response = service_pb2.CreateRun.Response()
    response.run.info.start_time = 1
    options = {"convert_int64_to_number": False}
    assert write(response, **options) == message_to_json(response, **options)
