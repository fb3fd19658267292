"""Strings with a pattern: names of objects, keys, images and versions."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "is not a valid object name: use lower-case letters, digits, '-' and '.'",
    ),
]
"""Name of an object in the namespace of the server."""

NamespaceName = Annotated[
    str,
    Field(max_length=63),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?",
        "is not a valid namespace name: use lower-case letters, digits and '-'",
    ),
]
"""Name of a namespace."""

DataKey = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[A-Za-z0-9._-]+",
        "is not a valid key of a Secret or ConfigMap: use letters, digits, '-', '_' and '.'",
    ),
]
"""Key in the data of a Secret or ConfigMap."""

ImageReference = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?",
        "is not a valid image reference: use registry/repository:tag, or remove the field to use the default",
    ),
]
"""Container image: repository with a tag or digest."""

MLflowVersion = Annotated[
    str,
    Field(max_length=64),
    matches(
        r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?",
        "is not a valid MLflow version: use a release such as 3.17.2, without a leading v; "
        "set a custom image in spec.image",
    ),
]
"""Release of MLflow."""

LabelKey = Annotated[str, Field(max_length=317)]
"""Key of a label or annotation, including the prefix."""

LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=4096)]

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]
