"""The daemon: configuration, construction of every object, sockets, recovery and an orderly stop (async)."""
