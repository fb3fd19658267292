"""Type aliases for Kubernetes objects, which are plain dicts in their JSON form."""

from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object, or a part of one, in its JSON form."""

NamespacedName: TypeAlias = tuple[str, str]
"""The namespace and the name of an object."""
