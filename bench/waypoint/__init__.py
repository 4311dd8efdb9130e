"""A waypoint of ours against an Envoy that does the same in its place, between the same node proxies."""
