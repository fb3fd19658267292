"""MLflow's answers in our writing: whatever it answers with, filled at random, reads as MLflow wrote it."""

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

DEPTH = 5
NUMBERS = (0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, math.nan, math.inf, -math.inf)
WORDS = ("", "a", 'q"\\\n\x00', "Zoë \u2028 \U0001f600", "x" * 300)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 0, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 0, 2**53 + 1, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def responses() -> Iterator[type[Message]]:
    """Every message named Response."""
    for module in (service_pb2, model_registry_pb2):
        for name in module.DESCRIPTOR.message_types_by_name:
            if response := getattr(getattr(module, name), "Response", None):
                yield response


def fill(message: Any, rng: random.Random, depth: int = DEPTH) -> None:
    """Gives some of its fields some values."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.3 or (field.message_type and not depth):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                with_key = field.message_type.fields_by_name["key"]
                getattr(message, field.name)[scalar(with_key, rng)] = scalar(
                    field.message_type.fields_by_name["value"], rng
                )
        elif field.message_type and field.message_type.file.package == "google.protobuf":
            # of these not everything can be written at all
            if field.message_type.name in {"Timestamp", "Duration"} and not field.is_repeated:
                getattr(message, field.name).seconds = 7
        elif field.message_type:
            below = getattr(message, field.name)
            for each in [below.add() for _ in range(rng.randrange(3))] if field.is_repeated else [below]:
                each.SetInParent()
                fill(each, rng, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(scalar(field, rng) for _ in range(rng.randrange(4)))
        else:
            setattr(message, field.name, scalar(field, rng))


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    """A value of its kind, rather an odd one."""
    if field.enum_type:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in INTEGERS:
        return rng.choice(INTEGERS[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        word = rng.choice(WORDS)
        return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
    return rng.choice(NUMBERS)


RESPONSES = list(responses())
written = json_writer.writer(message_to_json)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_it_reads_as_mlflow_wrote_it(seed: int) -> None:
    """Numbers that JSON has no words for, whole 64-bit numbers, what is empty and what is not set: to the letter."""
    rng = random.Random(seed)  # noqa: S311
    for kind in RESPONSES:
        message = kind()
        fill(message, rng)
        assert written(message) in {message_to_json(message, pretty=False), message_to_json(message)}


def test_what_a_search_gives_is_written_by_us() -> None:
    """It is what is read most; MLflow's own writer is not asked."""
    found = service_pb2.SearchRuns.Response()
    for _ in range(3):
        fill(found.runs.add(), random.Random(1), 3)  # noqa: S311

    def never(_: Message) -> str:
        raise AssertionError

    assert json_writer.writer(never)(found) == message_to_json(found, pretty=False)


def test_what_is_unknown_is_left_to_mlflow() -> None:
    """And whoever asks for another form gets it from there."""
    unknown = Struct()
    unknown["a"] = 1
    assert written(unknown) == message_to_json(unknown)
    plain = service_pb2.CreateRun.Response()
    plain.run.info.start_time = 1
    asked = {"convert_int64_to_number": False}
    assert written(plain, **asked) == message_to_json(plain, **asked)
