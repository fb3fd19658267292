"""Runs MLflow tracking servers on Kubernetes."""

__version__ = "0.1.0"
"""Of the code as it is: in the image there is no installed package to ask. The chart's appVersion is the same."""
