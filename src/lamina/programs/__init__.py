"""One module per external program; `run` is the only place that starts one (blocking)."""
