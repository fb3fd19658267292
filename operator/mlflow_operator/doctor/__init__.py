"""`mlflow-operator doctor`: looks at an installation from a laptop or from the operator's pod, and changes nothing.

`look` asks the cluster and hands over what it saw; `checks` make findings of that and know no cluster; `report` prints.
"""
