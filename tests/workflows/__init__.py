"""Programs of data scientists, each a whole workflow. Examples to take, and tests: tests/e2e/test_workflows.py."""
