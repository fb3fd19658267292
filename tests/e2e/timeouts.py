"""Timeouts in seconds, for two slow cores: ten times the usual duration. Tests poll, so a timeout costs no time."""

READY_SECONDS = 240.0
"""From `kubectl apply` to Ready, migration included."""

STATUS_SECONDS = 60.0
"""Until the status reports a change of the server's stores, and until it is Ready again without new pods."""

ROLLOUT_SECONDS = 180.0
"""Until new pods have replaced the old ones."""

REPAIR_SECONDS = 30.0
"""Until the operator has corrected an owned object that was changed or deleted."""

RESYNC_SECONDS = 90.0
"""Until the operator notices a change of something that it reads but does not watch: one resync (60 s) and a margin."""

UNAFFECTED_SECONDS = 10.0
"""Until the operator has corrected an owned object while it also waits for unresponsive stores of other servers."""

DELETION_SECONDS = 120.0
"""Until a deleted object is gone, the grace period of pods included."""

ENDPOINT_SECONDS = 60.0
"""Until a Service routes a new connection to a pod that answers."""

POLL_INTERVAL_SECONDS = 0.2
"""Pause between two polls."""
