"""What happened, told in Istio's words: metrics, access log, readiness, and the servers that show them."""

from ztunnel.deferred import defer

defer("prometheus_client")
