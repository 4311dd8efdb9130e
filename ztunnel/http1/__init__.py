"""HTTP/1.1 without I/O, for both roles: heads, framing, bodies; whatever is ambiguous is refused."""
