"""Benchmarks of the operator, each beside a baseline that is measured in the same run: `make bench`.

Each figure is one module. `lab` prepares the cluster and waits, `rows` holds the results. `make test` runs no
benchmark; tests/unit tests how samples become rows.
"""

BENCH_LABEL = "mlflow-operator.dev/bench"
"""On every namespace that a benchmark creates."""
