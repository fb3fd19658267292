"""What a field's Python type cannot say about its schema: how lists merge, what is stored, what is opaque."""

from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

UNSTORED_DEFAULT = "x-unstored-default"
"""Tells the CRD generator to leave the default out; it never reaches the CRD."""


class ListMap:
    """A list whose items are told apart by `keys`, so that several appliers can each own some."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": self.keys}


class ListSet:
    """A list of scalars without order or repetition."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "set"}


class ListAtomic:
    """A list that is replaced as a whole."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "atomic"}


class NotPersistedDefault:
    """A default that code applies and the API server does not store.

    For members that other members rule out: a stored default would make them look set.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {UNSTORED_DEFAULT: True}


class Format:
    """The width of an integer, as OpenAPI names it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"format": self.name}


Opaque = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""One of Kubernetes' own types, passed on as it is: too large to repeat, checked where it is used."""

Int32 = Annotated[int, Format("int32")]
Int64 = Annotated[int, Format("int64")]
