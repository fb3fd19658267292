"""Parsing and validation of resources without an API server."""

from typing import Any

import pytest

from mlflow_operator.api import API_VERSION, KIND, InvalidResource, MLflowServer, parse
from tests.unit.api.refusals import (
    ACCEPTED,
    REJECTED_AFTER_PRUNING,
    REJECTED_ON_CREATE,
    REJECTED_ON_UPDATE,
    Accepted,
    Rejected,
)


def manifest(spec: dict[str, Any], name: str = "server") -> dict[str, Any]:
    """Manifest of an MLflowServer."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("case", REJECTED_ON_CREATE, ids=lambda case: case.title)
def test_models_reject_what_the_api_server_rejects(case: Rejected) -> None:
    """`render` has no API server, and a stored object may be older than a rule. Field and message are the same."""
    with pytest.raises(InvalidResource) as error:
        parse(manifest(case.spec, case.name))
    assert case.field.removesuffix("[0]").split(".")[-1].split("[")[0] in str(error.value)
    assert case.message.lower() in str(error.value).lower()


@pytest.mark.parametrize(
    "case", [*ACCEPTED, *REJECTED_ON_UPDATE, *REJECTED_AFTER_PRUNING], ids=lambda case: case.title
)
def test_valid_specs_are_parsed(case: Accepted | Rejected) -> None:
    """The models do not evaluate transition rules: every spec is valid on its own."""
    spec = {
        field: {name: value for name, value in part.items() if value is not None}
        if isinstance(part, dict)
        else part
        for field, part in case.spec.items()
    }
    assert parse(manifest(spec, case.name)).metadata.name == case.name


def test_missing_spec_equals_empty_spec() -> None:
    """A resource without a spec is valid."""
    assert parse({"metadata": {"name": "a"}}).spec == parse(manifest({})).spec


def test_unknown_fields_are_ignored() -> None:
    """An operator can parse an object that a newer version stored."""
    newer = manifest({"backup": {"schedule": "@daily"}, "database": {"embedded": {"instances": 3}}})
    newer["status"] = {"version": "4.0.0", "database": {"type": "CloudNativePG"}, "backup": {"lastID": "1"}}
    assert parse(newer).spec.database.embedded is not None
    assert parse(newer).status.version == "4.0.0"


def test_snake_case_names_are_not_accepted() -> None:
    """A snake_case name is an unknown field, as for the API server."""
    assert parse(manifest({"job_execution": "Enabled"})).spec.job_execution == "Disabled"


def test_error_message_contains_no_password() -> None:
    """Users paste a complete URI as host. Logs and conditions must not contain its password."""
    spec = {
        "database": {
            "external": {"host": "postgresql://me:hunter2@db", "credentialsSecretRef": {"name": "x"}}
        }
    }
    with pytest.raises(InvalidResource) as error:
        parse(manifest(spec))
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_error_message_names_all_invalid_fields() -> None:
    """Users can fix all errors at once."""
    with pytest.raises(InvalidResource) as error:
        parse(manifest({"version": "latest", "replicas": "two"}))
    assert "spec.version: 'latest' is not a valid MLflow version" in str(error.value)
    assert "spec.replicas: " in str(error.value)


def test_initialisms_are_upper_case_in_json() -> None:
    """The alias generator alone would produce accessKeyIdKey."""
    credentials = {"name": "x", "accessKeyIDKey": "id", "secretAccessKeyKey": "secret"}
    server = parse(manifest({"artifacts": {"s3": {"bucket": "abc", "credentialsSecretRef": credentials}}}))
    assert server.spec.artifacts.s3 is not None
    assert server.spec.artifacts.s3.manifest()["credentialsSecretRef"] == credentials


def test_volume_sources_are_preserved() -> None:
    """The models do not define the fields of a source."""
    volume = {"name": "ca", "configMap": {"name": "ca", "defaultMode": 292}}
    server = parse(manifest({"podTemplate": {"spec": {"volumes": [volume]}}}))
    assert server.spec.pod_template.spec.volumes[0].manifest() == volume


def test_models_are_immutable() -> None:
    """Assignments to fields of a parsed resource raise an error."""
    server: MLflowServer = parse(manifest({}))
    with pytest.raises(ValueError, match="frozen"):
        server.spec.replicas = 2  # type: ignore[misc]
