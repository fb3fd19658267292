"""Runs MLflow tracking servers on Kubernetes."""
