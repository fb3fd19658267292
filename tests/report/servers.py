"""Number of MLflowServers that the tests of this process created."""

_created = 0


def count(number: int = 1) -> None:
    """Add `number` created MLflowServers to the running test. Must be called when a test creates one."""
    global _created  # noqa: PLW0603 - one number for the whole process
    _created += number


def created() -> int:
    """Return the number since the process started."""
    return _created
