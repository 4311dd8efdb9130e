"""A small, strict HTTP/1.1 server for the proxy's own pages: admin, metrics, readiness."""
