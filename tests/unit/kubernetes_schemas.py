"""Kubernetes' own schemas from the package kubernetes-validate.

Its `validate` reads 2 MB of definitions for every object. Here each schema is read once.
"""

import re
from functools import cache
from typing import Any

from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from mlflow_operator.kube.objects import Object


def valid(obj: Object, version: str) -> None:
    """Raises unless the object fits the schema of that Kubernetes version, unknown fields included."""
    _validator(obj["kind"], obj["apiVersion"], version).validate(obj)


@cache
def _validator(kind: str, api_version: str, version: str) -> Validator:
    folder = _folder(version)
    # as the files are named: rbac.authorization.k8s.io/v1 is rbac-v1
    group_version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"{folder}/{kind.lower()}-{group_version}.json", version)
    registry = Resource.from_contents(schema) @ _definitions(folder)
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(folder: str) -> Registry[Any]:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", folder)) @ Registry()


@cache
def _folder(version: str) -> str:
    # each version is listed twice: there is a folder of lenient schemas, too
    (found,) = {known for known in all_versions() if major_minor(known) == version}
    return f"kubernetes-json-schema/v{found}-local-strict"
