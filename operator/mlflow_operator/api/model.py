"""What every part of the resource has in common: its spelling on the wire, immutability, its rules."""

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
    """A part of the resource: camelCase on the wire, snake_case in Python, never changed once made.

    Unknown fields are ignored: an object stored by a newer operator must stay readable for an older one.
    The text under a field is its description in the CRD, shown by `kubectl explain`.
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
    def _hold_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_stored(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if name not in self.model_fields_set and any(
                isinstance(it, NotPersistedDefault) for it in field.metadata
            ):
                written.pop(field.alias or name, None)
        return written

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
        """Return the part as a manifest spells it: absent members left out, defaults as the API server stores them."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
