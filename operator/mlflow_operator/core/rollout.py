"""One value that changes when anything changes that a server's pods read from elsewhere."""

import hashlib
import hmac
import json
from collections.abc import Mapping


def fingerprint(values: Mapping[str, Mapping[str, str] | None], key: bytes) -> str:
    """HMAC-SHA256 over the data of Secrets and ConfigMaps, by name; None for one that does not exist.

    It stands in an annotation that many may read. With a bare hash they could try passwords against it until
    one fits; `key` is the server's own and is kept in a Secret.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]
