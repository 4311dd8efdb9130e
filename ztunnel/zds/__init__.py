"""Pods that Istio's CNI agent names (ZDS), and which its rules redirect: no program of ours sees them."""
