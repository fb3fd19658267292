"""`mlflow-operator doctor`: a read-only check of an installation, from outside the cluster or from the operator's pod.

`collect` reads the cluster into an ObservedCluster, `checks` are pure functions that turn it into findings, and
`report` prints the findings.
"""
