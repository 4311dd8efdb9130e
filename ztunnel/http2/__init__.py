"""HTTP/2 without I/O that tunnels and gRPC have in common: frames on the wire, and what a peer may cost."""
