"""End to end: real servers, made by the operator on the test cluster, used by the plain MLflow client."""
