"""How long things may take, in seconds, on two slow cores. Ten times what they do take; nothing waits for them to
pass."""

READY = 240.0
"""From `kubectl apply` to Ready, migration included."""

SETTLED = 60.0
"""Until a status tells of what happened to the server's stores, and until it is Ready again without new pods."""

ROLLED = 180.0
"""Until new pods have taken the place of the old ones."""

REPAIRED = 30.0
"""Until an owned object that was changed or deleted is as it should be."""

NOTICED = 90.0
"""Until a change of what the operator reads but does not watch is noticed: one resync (60 s) and a bit."""

UNDISTURBED = 10.0
"""The same, while the operator waits for others in vain."""

GONE = 120.0
"""Until something deleted is gone, pods' grace included."""

ANSWERS = 60.0
"""Until a Service sends a new connection to a pod that answers."""

POLL = 0.2
"""Between two looks."""
