"""Policies and tokens: what node proxies and waypoints are told of them."""
