"""The only door to bpf(2), bcc, netlink and other namespaces: thin wrappers, no decisions."""

from ztunnel.deferred import defer

defer("pyroute2")
