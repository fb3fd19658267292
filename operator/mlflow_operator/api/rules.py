"""Validation rules of the API, declared next to the fields that they validate.

A rule is enforced twice: by the API server, as CEL in the CRD; and by the models, in Python, for
`mlflow-operator render`, which has no API server, and for objects that were stored before the rule existed.
Transition rules, which compare with the stored object, exist in the CRD only.

CEL is limited to what Kubernetes 1.30 supports: optionals, quantities and sets are available, `ip()` and `format` are
not. The API server also evaluates rules on schema defaults, before it applies the defaults of nested fields: rules
must read such fields with `.?`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"

_CAMEL_CASE_EXCEPTIONS = {"cloud_native_pg": "cloudNativePG"}


@dataclass(frozen=True)
class Rule:
    """Validation rule: a CEL expression over `self` (and `oldSelf`) that must be true, and the error message.

    In `Annotated` the rule validates a string or a list; in the `rules` of a model it validates the object.
    `message` states the error and how to fix it. `message_expression` is a CEL expression for messages that contain the
    invalid value.
    `field` is the path below the validated object that the API server reports, such as `.replicas`.
    `holds` is the same check in Python; without it, only the API server enforces the rule. `format_message` returns
    the message in Python if it differs from `message`.
    """

    cel: str
    message: str
    message_expression: str | None = None
    field: str | None = None
    holds: Callable[[Any], bool] | None = None
    format_message: Callable[[Any], str] | None = None

    def validation(self) -> dict[str, str]:
        """Return the entry for `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        if self.message_expression:
            entry["messageExpression"] = self.message_expression
        if self.field:
            entry["fieldPath"] = self.field
        return entry

    def check(self, value: Any) -> Any:
        """Return `value`, or raise ValueError with the rule's message."""
        if self.holds is not None and not self.holds(value):
            raise ValueError(self.format_message(value) if self.format_message else self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.validation()]
        return json_schema


def string_rule(cel: str, message: str, holds: Callable[[str], bool]) -> Rule:
    """Return a rule for a string whose message begins with the value: `'v3' is not a valid MLflow version: ...`."""
    return Rule(
        cel=cel,
        message=f"the value {message}",
        message_expression="'\\'' + self + " + cel_string(f"' {message}"),
        holds=holds,
        format_message=lambda value: f"'{value}' {message}",
    )


def matches(pattern: str, message: str, *, sensitive: bool = False) -> Rule:
    """Return the rule that a string matches `pattern` as a whole.

    The pattern must have the same meaning in RE2 and in Python: no look-around, no back-references. The message
    contains the value unless it is `sensitive`, that is, unless users may put a password there.
    """
    compiled = re.compile(pattern)
    cel = f"self.matches({cel_string(f'^(?:{pattern})$')})"

    def holds(value: str) -> bool:
        return compiled.fullmatch(value) is not None

    return Rule(cel, f"the value {message}", holds=holds) if sensitive else string_rule(cel, message, holds)


def at_most_one(path: str, *members: str) -> Rule:
    """Return the rule that at most one of the fields of a union is set.

    `members` are attribute names; `path` names the union in the message.
    """
    names = [camel_case(member) for member in members]
    present = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return Rule(
        cel=f"{present} <= 1",
        message=f"{path} must set at most one of {join_names(names)}: keep one and remove the others",
        holds=lambda value: sum(getattr(value, attribute) is not None for attribute in members) <= 1,
    )


def exactly_one(path: str, *members: str) -> Rule:
    """Return the rule that exactly one of the fields is set; the arguments are those of `at_most_one`."""
    names = [camel_case(member) for member in members]
    present = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return Rule(
        cel=f"{present} == 1",
        message=f"{path} must set exactly one of {join_names(names)}",
        holds=lambda value: sum(getattr(value, attribute) is not None for attribute in members) == 1,
    )


def not_empty(path: str, *members: str) -> Rule:
    """Return the rule that an object, if set, has at least one of its fields.

    The API server prunes a field with the value null, such as `external:` without a value. The remaining empty object
    would mean the default, which is not what the user intended.
    """
    names = [camel_case(member) for member in members]
    return Rule(
        cel=" || ".join(f"has(self.{name})" for name in names),
        message=f"{path} must not be empty: set {join_names(names, 'or')} (for example {names[0]}: {{}}), "
        f"or remove {path} to use the default",
    )


def camel_case(attribute: str) -> str:
    """Return the JSON name of a field. Initialisms stay upper-case: `cloudNativePG`."""
    return _CAMEL_CASE_EXCEPTIONS.get(attribute) or to_camel(attribute)


def cel_string(text: str) -> str:
    """Return `text` as a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def join_names(names: list[str], conjunction: str = "and") -> str:
    """Join names for a message: `a, b and c`."""
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"
