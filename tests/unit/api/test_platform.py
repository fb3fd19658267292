"""The models of MLflowPlatform reject what the API server rejects."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlflow_operator.api.crd import PLATFORM, openapi_schema
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND, MLflowPlatform, parse
from mlflow_operator.api.resource import API_VERSION, InvalidResource
from tests.server_values import closed_schema
from tests.unit.api.platform_refusals import ACCEPTED, REJECTED, platform
from tests.unit.api.refusals import Accepted, Rejected

CLOSED_SCHEMA = closed_schema(openapi_schema(PLATFORM)["properties"]["spec"])


def manifest(spec: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """Manifest of an MLflowPlatform."""
    metadata = {"name": "shared", "annotations": annotations}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.title)
def test_models_reject_what_the_api_server_rejects(case: Rejected) -> None:
    """A stored object may be older than a rule. Field and message are the same."""
    with pytest.raises(InvalidResource) as error:
        parse(manifest(case.spec))
    text = str(error.value).lower()
    assert case.field.removesuffix("[0]").split(".")[-1].split("[")[0].lower() in text
    assert case.message.lower() in text
    assert "hunter2" not in text


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
def test_valid_specs_are_parsed(case: Accepted) -> None:
    """The schema accepts them, too, and parsing only adds defaults."""
    Draft202012Validator(CLOSED_SCHEMA).validate(case.spec)
    parsed = parse(manifest(case.spec)).spec.manifest()
    Draft202012Validator(CLOSED_SCHEMA).validate(parsed)
    assert parse(manifest(parsed)).spec.manifest() == parsed


def test_platform_requires_a_spec() -> None:
    with pytest.raises(InvalidResource, match="spec: Field required"):
        parse({"metadata": {"name": "shared"}})


def test_message_about_a_wrong_type_names_no_python_class() -> None:
    with pytest.raises(InvalidResource) as error:
        parse(manifest(platform(database__postgres__tls__caSecretRef="ca")))
    assert str(error.value) == "spec.database.postgres.tls.caSecretRef: Input should be an object with fields"


@pytest.mark.parametrize(("value", "is_default"), [("true", True), ("false", False), ("True", False)])
def test_annotation_makes_a_platform_the_default(value: str, is_default: bool) -> None:
    """As for StorageClasses, only `true` counts."""
    assert parse(manifest(platform(), **{DEFAULT_ANNOTATION: value})).is_default is is_default
    assert not parse(manifest(platform())).is_default


def test_references_have_no_namespace() -> None:
    """All Secrets are in `secretsNamespace`: a reference cannot name a Secret elsewhere."""
    spec: MLflowPlatform = parse(
        manifest(platform(database__postgres__adminSecretRef={"name": "a", "namespace": "b"}))
    )
    assert spec.spec.database is not None
    assert "namespace" not in spec.spec.database.postgres.admin_secret_ref.manifest()
    # Those of serverDefaults name Secrets in the namespace of the server, like the fields of MLflowServer.
    properties = {k: v for k, v in CLOSED_SCHEMA["properties"].items() if k != "serverDefaults"}
    references = [node for name, node in _objects({"properties": properties}) if name.endswith("SecretRef")]
    assert len(references) == 4
    assert not any("namespace" in node["properties"] for node in references)


def _objects(schema: dict[str, Any], name: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(name, schema)]
    for key, child in schema.get("properties", {}).items():
        found += _objects(child, key)
    return found
