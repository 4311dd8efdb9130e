"""gRPC over HTTP/2 (the h2 library), without I/O and driven by Trio: one package for clients and servers."""
