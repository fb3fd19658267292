"""Base class of the API models: camelCase in JSON, immutability, validation rules."""

from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mlflow_operator.api.markers import NotPersistedDefault
from mlflow_operator.api.rules import VALIDATIONS, Rule


class Model(BaseModel):
    """Immutable part of the resource, with camelCase names in JSON and snake_case names in Python.

    Unknown fields are ignored, because an operator must be able to read an object that a newer version stored.
    The docstring of a field is its description in the CRD, which `kubectl explain` shows.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @model_serializer(mode="wrap")
    def _omit_not_persisted_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        serialized: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if name not in self.model_fields_set and any(
                isinstance(marker, NotPersistedDefault) for marker in field.metadata
            ):
                serialized.pop(field.alias or name, None)
        return serialized

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler(schema)
        if cls.rules:
            resolved = handler.resolve_ref_schema(json_schema)
            resolved[VALIDATIONS] = [rule.validation() for rule in cls.rules]
        return json_schema

    def manifest(self) -> dict[str, Any]:
        """Return the part as in a manifest: without unset fields, with the defaults that the API server persists."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
