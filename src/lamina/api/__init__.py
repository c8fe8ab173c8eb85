"""The Engine API edge: routes table, errors to status, hijacked streams (async)."""
