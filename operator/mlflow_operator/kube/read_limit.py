"""Limit for the size of responses of the API server. Everyone who may create objects adds to them."""

from mlflow_operator.kube.errors import TooLarge

_MIN_BYTES_PER_MEMBER = 48
"""Size that each JSON object counts with at least. As a dict, `{"name":"a"}` needs fourteen times the memory of its
text. Two hundred pods have 80,000 members, which fit into 4 MiB."""

_MEMORY_PER_MEMBER = 200
"""Memory that each JSON object needs in addition to its text."""

_BYTES_PER_CHAR = 4
"""Memory of each character of a text that contains an emoji, for example. One is enough for a text of 1 MiB."""
_ESCAPED = b"\\u202"
"""Go escapes the line separators of Unicode, which need two bytes."""


def max_memory(max_bytes: int) -> int:
    """Estimated memory of the decoded responses that a limit of `max_bytes` allows at most."""
    return max_bytes * _BYTES_PER_CHAR + max_bytes // _MIN_BYTES_PER_MEMBER * _MEMORY_PER_MEMBER


class ReadLimit:
    """Bytes that the responses to several requests may have in total. They count before they are decoded.

    `used`: bytes of the responses so far; `memory`: estimated memory of the decoded ones.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.used, self.memory = max_bytes, 0, 0

    @property
    def remaining(self) -> int:
        """Bytes that further responses may have."""
        return self.max_bytes - self.used

    def take(self, body: bytes | bytearray, action: str) -> None:
        """Count a response. Raises TooLarge if it exceeds the limit."""
        members = body.count(b"{")
        size = max(len(body), members * _MIN_BYTES_PER_MEMBER)
        if size > self.remaining:
            raise TooLarge(f"{action}: the response is too large")
        self.used += size
        has_wide_text = not body.isascii() or _ESCAPED in body
        self.memory += len(body) * (_BYTES_PER_CHAR if has_wide_text else 1) + members * _MEMORY_PER_MEMBER

    def take_shared(self, other: "ReadLimit", action: str) -> None:
        """Count the responses that `other` has counted. Raises TooLarge if they exceed the limit."""
        if other.used > self.remaining:
            raise TooLarge(f"{action}: the response is too large")
        self.used += other.used
        self.memory += other.memory
