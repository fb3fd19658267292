"""Walks the schema of the CRD or of a chart's values."""

from collections.abc import Iterator

from mlflow_operator.api.schema import Schema


def walk_schema(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every node of a schema with its path, parents before children.

    In a path, `[]` stands for each item of a list and `.*` for each value of a map.
    """
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk_schema(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk_schema(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk_schema(schema["additionalProperties"], f"{path}.*")
