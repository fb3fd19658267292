"""Validation with the Kubernetes schemas from the package kubernetes-validate.

The function `validate` of that package reads 2 MB of definitions for each object. This module reads each schema once.
"""

import re
from functools import cache
from typing import Any

from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from mlflow_operator.kube.objects import Object


def validate_object(obj: Object, version: str) -> None:
    """Raise if the object does not match the schema of the Kubernetes version or contains unknown fields."""
    _validator(obj["kind"], obj["apiVersion"], version).validate(obj)


@cache
def _validator(kind: str, api_version: str, version: str) -> Validator:
    directory = _directory(version)
    # File names shorten the group: rbac.authorization.k8s.io/v1 becomes rbac-v1.
    group_version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"{directory}/{kind.lower()}-{group_version}.json", version)
    registry = Resource.from_contents(schema) @ _definitions(directory)
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(directory: str) -> Registry[Any]:
    return Resource.from_contents(schema_contents(f"{directory}/_definitions.json", directory)) @ Registry()


@cache
def _directory(version: str) -> str:
    # Each version is listed twice, because there are also directories with lenient schemas.
    (release,) = {candidate for candidate in all_versions() if major_minor(candidate) == version}
    return f"kubernetes-json-schema/v{release}-local-strict"
