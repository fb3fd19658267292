"""End-to-end tests: the operator creates real servers on the test cluster, and the plain MLflow client uses them."""
