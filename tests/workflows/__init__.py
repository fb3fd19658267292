"""Client programs, each a complete workflow. They are examples for users, and tests/e2e/test_workflows.py runs them."""
