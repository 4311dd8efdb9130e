"""HTTP/2 without I/O, for any stream and both roles: frames, header blocks, streams, windows, a budget."""
