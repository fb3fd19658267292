"""Kubernetes operator for MLflow tracking servers."""

__version__ = "0.1.0"
"""Version of the operator. It is defined here because the package is not installed in the image, so that its metadata
is not available. Must equal the chart's appVersion."""
