"""HTTP/1.1 over unix and TCP sockets; the only package that knows which HTTP library we use (async)."""
