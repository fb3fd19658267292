"""Annotations for schema properties that a Python type cannot express: list types, integer formats, defaults that are
not persisted, and opaque objects.
"""

from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

NOT_PERSISTED_DEFAULT = "x-not-persisted-default"
"""Schema keyword that tells the CRD generator to omit the default. The CRD does not contain it."""


class ListMap:
    """List whose items are identified by `keys`, so that several field managers can each own some of the items."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": self.keys}


class ListSet:
    """Unordered list of unique scalars."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "set"}


class ListAtomic:
    """List that is replaced as a whole."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "atomic"}


class NotPersistedDefault:
    """Default that the models apply and that the API server does not persist.

    For fields that are mutually exclusive with other fields: a persisted default would count as set.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {NOT_PERSISTED_DEFAULT: True}


class IntegerFormat:
    """OpenAPI format of an integer, which is its width."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"format": self.name}


Opaque = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""Object of a Kubernetes type that is too large to repeat here. It is copied to the pod without changes, and the API
server validates it there.
"""

Int32 = Annotated[int, IntegerFormat("int32")]
Int64 = Annotated[int, IntegerFormat("int64")]
