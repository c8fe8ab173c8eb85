"""Containers: what was asked for, what is kept, how they run (async, but for the modules named blocking or pure)."""
