"""Strings with a grammar: names of objects, keys, images. Each says in one sentence what it takes."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import matches

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "is no name of a Kubernetes object: use lower-case letters, digits, '-' and '.'",
    ),
]
"""The name of an object in the namespace of the server."""

NamespaceName = Annotated[
    str,
    Field(max_length=63),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?",
        "is no name of a namespace: use lower-case letters, digits and '-'",
    ),
]
"""The name of a namespace."""

DataKey = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[A-Za-z0-9._-]+",
        "is no key of a Secret or ConfigMap: use letters, digits, '-', '_' and '.'",
    ),
]
"""A key in the data of a Secret or ConfigMap."""

ImageReference = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?",
        "is no image reference: write it as registry/repository:tag, or leave the field out for the default",
    ),
]
"""A container image: repository with a tag or digest."""

LabelKey = Annotated[str, Field(max_length=317)]
"""A label or annotation key, prefix included."""

LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=4096)]

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]
