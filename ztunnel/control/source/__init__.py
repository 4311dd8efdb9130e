"""The objects of a mesh, out of a folder or a cluster, each with its own faults."""
