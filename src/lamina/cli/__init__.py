"""The command line client (async-free: it speaks HTTP to the daemon and draws)."""
