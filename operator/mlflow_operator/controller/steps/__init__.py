"""The parts of a reconcile, in the order in which a server comes up. Each answers with one condition."""
