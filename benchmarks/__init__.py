"""Benchmarks of the operator, each compared with a baseline that is measured in the same run: `make bench`.

Each figure is one module. `lab` prepares the cluster and waits, `rows` contains the results. `make test` runs no
benchmark; tests/unit tests how samples become rows.
"""

BENCH_LABEL = "mlflow-operator.dev/bench"
"""Label of every namespace and platform that a benchmark creates."""
