"""The command line client: docker's grammar over the Engine API (blocking; it imports as little as a command needs)."""
