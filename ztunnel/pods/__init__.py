"""Pods of this node: which of them are in the mesh, and how one is enrolled and removed."""
