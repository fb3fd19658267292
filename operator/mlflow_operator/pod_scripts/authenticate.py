"""Placeholder, which the pod scripts of authentication replace."""

from database_common import libpq_uri

raise SystemExit(f"not implemented: {libpq_uri.__name__}")
