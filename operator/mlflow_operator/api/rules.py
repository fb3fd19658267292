"""What the resource refuses, declared once beside the field it is about.

A rule is enforced twice: by the API server, as CEL in the CRD, when somebody applies a resource; and by the
models, in Python, for whoever has no API server at hand (`mlflow-operator render`) and for objects that were
stored before the rule existed. Rules that compare with the stored object can only live in the CRD.

CEL is limited to what Kubernetes 1.30 admits: optionals, quantities and sets are in,
`ip()` and `format` are not.
Rules run on schema defaults too, before defaults inside them are filled in: members are asked for with `.?`.
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

_SPELLED = {"cloud_native_pg": "cloudNativePG"}


@dataclass(frozen=True)
class Rule:
    """A sentence that must hold, as CEL over `self` (and `oldSelf`), and what to say when it does not.

    In `Annotated` it guards a string or a list; in a model's `rules` it guards the object.
    `message` states the fault and the way out. `message_expression` is CEL too, for sentences that quote a
    value.
    `field` is the path below the guarded object that the API server should blame, such as `.replicas`.
    `holds` is the same check in Python; without it only the API server enforces the rule. `says` is the sentence
    there, where it is not `message`.
    """

    cel: str
    message: str
    message_expression: str | None = None
    field: str | None = None
    holds: Callable[[Any], bool] | None = None
    says: Callable[[Any], str] | None = None

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
            raise ValueError(self.says(value) if self.says else self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.validation()]
        return json_schema


def text(cel: str, fault: str, holds: Callable[[str], bool]) -> Rule:
    """Return a rule on a string whose sentence begins with the string itself: `'v3' is no version: ...`."""
    return Rule(
        cel=cel,
        message=f"the value {fault}",
        message_expression="'\\'' + self + " + quoted(f"' {fault}"),
        holds=holds,
        says=lambda value: f"'{value}' {fault}",
    )


def matches(pattern: str, fault: str, *, secret: bool = False) -> Rule:
    """Return the rule that a string matches `pattern` as a whole.

    The pattern must mean the same to RE2 and to Python: no look-around, no back-references. The sentence repeats
    the string, unless people are likely to put a password there (`secret`).
    """
    compiled = re.compile(pattern)
    cel = f"self.matches({quoted(f'^(?:{pattern})$')})"

    def holds(value: str) -> bool:
        return compiled.fullmatch(value) is not None

    return Rule(cel, f"the value {fault}", holds=holds) if secret else text(cel, fault, holds)


def at_most_one(path: str, *members: str) -> Rule:
    """Return the rule that an object has at most one of its union members.

    `members` are attribute names; `path` names the object in the sentence.
    """
    names = [camel_case(member) for member in members]
    present = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return Rule(
        cel=f"{present} <= 1",
        message=f"{path} takes at most one of {listed(names)}: keep the one that is used, remove the others",
        holds=lambda value: sum(getattr(value, attribute) is not None for attribute in members) <= 1,
    )


def exactly_one(path: str, *members: str) -> Rule:
    """Return the rule that an object has exactly one of its members; arguments as for `at_most_one`."""
    names = [camel_case(member) for member in members]
    present = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return Rule(
        cel=f"{present} == 1",
        message=f"{path} needs exactly one of {listed(names)}",
        holds=lambda value: sum(getattr(value, attribute) is not None for attribute in members) == 1,
    )


def not_empty(path: str, *members: str) -> Rule:
    """Return the rule that an object, once it is there, has at least one of its members.

    The API server takes `external:` with nothing after it for absent and prunes it: what is left is the empty
    object around it, and who wrote that meant something else than the default.
    """
    names = [camel_case(member) for member in members]
    return Rule(
        cel=" || ".join(f"has(self.{name})" for name in names),
        message=f"{path} is empty: fill in {listed(names, 'or')} (an empty one is written {names[0]}: {{}}), "
        f"or remove {path} for the default",
    )


def camel_case(attribute: str) -> str:
    """Return a member's name on the wire, where initials stay capitals: `cloudNativePG`."""
    return _SPELLED.get(attribute) or to_camel(attribute)


def quoted(text: str) -> str:
    """Return `text` as a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def listed(names: list[str], word: str = "and") -> str:
    """Return names as a sentence lists them: `a, b and c`."""
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
